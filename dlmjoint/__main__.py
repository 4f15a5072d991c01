"""The `dlmjoint` command, also as `python -m dlmjoint`."""

import sys

from dlmjoint.verbs import answered


def main() -> None:
    """Answer what needs no imports; hand everything else to `cli`."""
    if not answered(sys.argv[1:]):
        from dlmjoint.cli import main as command  # imports torch and Lightning, for seconds

        command()


if __name__ == "__main__":
    main()
