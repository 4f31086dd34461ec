"""Forward passes: the plain models, and variants packed for a CPU, quantized, or fused for a GPU."""
