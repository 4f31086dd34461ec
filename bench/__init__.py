"""Programs that measure: each prints a table and writes JSON with its conditions. None of them is a test."""
