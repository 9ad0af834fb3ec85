"""Open questions, two systems' answers to them, and a judge that compares these."""
