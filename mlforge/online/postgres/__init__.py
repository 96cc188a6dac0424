"""The online store on PostgreSQL."""
