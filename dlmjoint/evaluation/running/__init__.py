"""Decoding for an evaluation: what is to be written, by whom, and where it is kept."""
