"""Autoregressive models that look at texts."""
