"""Files that come in: listing them, and reading one without trusting it."""
