"""Blind ranking by people: the same questions, several systems' answers, and no names."""
