"""The serve stage: the promoted model behind an OpenAI-compatible HTTP API, on Ray Serve."""
