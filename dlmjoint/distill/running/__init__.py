"""A fit as a run: what it goes on from, how it ends, over how many processes."""
