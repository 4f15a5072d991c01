"""Windows of trajectory states, and the sampler unrolled along them."""
