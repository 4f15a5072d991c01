"""Decode once, score as often as you like: tasks, metrics, and the tables made of them."""
