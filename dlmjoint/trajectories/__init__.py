"""Exact sequential-unmask trajectories: drawn, recorded as tokens and order, stored in shards."""
