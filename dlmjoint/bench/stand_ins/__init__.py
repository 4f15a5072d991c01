"""What stands in for weights, trajectories and the paper's own code where they are not at hand."""
