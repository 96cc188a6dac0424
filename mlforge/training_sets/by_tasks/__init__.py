"""A training set whose parts several processes make: the plan that they share, and their tasks."""
