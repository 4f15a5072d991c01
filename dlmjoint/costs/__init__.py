"""What decoding and training cost: by arithmetic from a config, and as a run has spent it."""
