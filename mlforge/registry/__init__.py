"""The registry: all features and services of a project, their owners, their users, and what they are made from."""
