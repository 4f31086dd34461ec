"""After an edit, the same change is often due elsewhere in the file: where and what, by syntax alone.

Pure functions on trees; must not know models, editors, files or event loops.
"""
