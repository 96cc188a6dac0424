"""Small programs that keep the house in order: `make lint` runs them."""
