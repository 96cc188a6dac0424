"""The front door: the features of a project and what can be done with them."""
