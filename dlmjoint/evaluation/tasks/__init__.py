"""What a decoder is asked to write, one file per task."""
