"""Files: where they lie, written whole or not at all, and where they came from."""
