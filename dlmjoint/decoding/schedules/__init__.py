"""How many tokens a forward writes: one file per published rule, and ours."""
