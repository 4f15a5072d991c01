"""Frozen bases behind one contract, and the trained layer."""
