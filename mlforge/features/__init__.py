"""What a user writes as a feature, and what the code of its function amounts to."""
