"""What bases are made of: who sees whom, the memory of a canvas, norms."""
