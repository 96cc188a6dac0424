"""Changes since a training set was made: the features and events that are others by now, and the files that brought them."""
