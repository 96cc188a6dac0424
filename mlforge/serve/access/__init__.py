"""Who may ask: API keys, tokens of issuers, and where a request comes from."""
