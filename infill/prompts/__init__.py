"""From text to prompt tokens and canvas: the interface, and one file per model family."""
