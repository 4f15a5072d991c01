"""Distil exact trajectories into the joint sampler."""
