"""What must hold of a completion before it is shown."""
