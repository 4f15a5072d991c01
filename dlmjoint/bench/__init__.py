"""Measurements of speed and memory, side by side in one run; one file per suite."""
