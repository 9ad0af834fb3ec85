"""The evaluate stage: held-out directions and conversations, through the engine that serves."""
