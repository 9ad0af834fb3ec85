"""The train stage: Ray Train workers fine-tune a LLaMA with DeepSpeed."""
