"""Cleaning of sentence pairs: what is dropped, by which step, and why.

`steps` looks at each pair by itself, `contamination` at the test sets, `duplicates` at all pairs
together. Whatever one of them drops goes to the quarantine, with the step's name and what it found.
"""
