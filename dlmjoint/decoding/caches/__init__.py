"""Which states a forward takes from the last ones: one file per published cache."""
