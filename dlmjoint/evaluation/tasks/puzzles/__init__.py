"""Puzzles made by seed, with an answer that is checked, not compared."""
