"""What is measured of it, one file per metric."""
