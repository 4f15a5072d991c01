"""Short Python functions: real text whose coherence a parser can check."""
