"""Floor 1: files to tensors and tokens, and back."""
