"""`python -m dlmjoint`."""

from dlmjoint.cli import main

if __name__ == "__main__":
    main()
