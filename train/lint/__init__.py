"""Training data, thresholds and name lists for lint."""
