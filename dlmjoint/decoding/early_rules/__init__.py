"""When a row is finished before its last mask."""
