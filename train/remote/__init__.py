"""Training on a rented GPU."""
