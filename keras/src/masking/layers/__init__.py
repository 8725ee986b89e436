"""How layers take masked tensors, and what they do with masks."""
