"""Source text: languages, syntax trees, brackets, indentation, and the context around an offset."""
