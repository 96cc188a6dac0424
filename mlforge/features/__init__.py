"""Features as a user writes them, and the identity of their functions' code."""
