"""Conversations from sentence pairs: what a user could have asked for, and the answer to it."""
