"""Cells as rectangles, and one look at their logits."""
