"""From a request to its completion: canvas, hole lengths, proposals, confidence and the pipeline."""
