"""What a run's generations are worth and cost."""
