"""Base weights: brought in, converted to safetensors, put together from deltas."""
