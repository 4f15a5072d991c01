"""What tasks are made of: where questions come from, and how they are asked."""
