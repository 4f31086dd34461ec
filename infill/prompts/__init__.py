"""Text to prompt tokens and canvas, one file per model family."""
