"""The `dlmjoint` command, also as `python -m dlmjoint`."""

import sys

from dlmjoint.verbs import answered


def main() -> None:
    """Answer what needs no imports; hand everything else to `cli`."""
    if answered(sys.argv[1:]):
        return
    try:
        from dlmjoint.cli import main as command  # imports torch, for seconds

        command()
    except KeyboardInterrupt:  # a command that has begun takes the signal itself
        sys.stderr.write("dlmjoint: asked to end before anything was begun\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
