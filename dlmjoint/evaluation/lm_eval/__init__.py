"""lm-eval: its command with our model, and its tasks in our runs."""
