"""Findings in code that is already written: candidate edits, evidence, thresholds, output formats."""
