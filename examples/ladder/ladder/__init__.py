"""A base, a policy, a task and a metric for dlmjoint, from outside of it."""
