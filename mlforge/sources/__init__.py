"""Source files: listing them, and reading each without trusting it."""
