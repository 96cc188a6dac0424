"""The page of a project: HTML made on the server from what the API tells."""
