"""Making the pocket model: its data, its tokenizer and its training. Nothing here is needed to fill a hole."""
