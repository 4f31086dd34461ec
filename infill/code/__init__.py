"""Source text: languages, syntax trees, brackets, indentation, and the context of a place."""
