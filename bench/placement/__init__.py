"""Full-size pipelines with random weights on a real GPU: whether arrangements need what the planner says."""
