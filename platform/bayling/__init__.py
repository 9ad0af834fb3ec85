"""BayLing: a multilingual LLM's whole life, from parallel text to a served champion."""

__version__ = "0.1.0"
