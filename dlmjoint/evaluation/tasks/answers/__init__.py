"""How an answer is read from a text, and whether it is right."""
