"""Training sets as libraries that learn take them. Each library is an extra, imported when its method of `TrainingSet` is called."""
