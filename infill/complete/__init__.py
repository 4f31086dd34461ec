"""From a request to its completion."""
