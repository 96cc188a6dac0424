"""The offline store in a local folder."""
