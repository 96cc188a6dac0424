"""Contract suites for backends: subclass one, give the fixture, run pytest."""
