"""A sampler or trajectories made ready for others, with a card that says what they are."""
