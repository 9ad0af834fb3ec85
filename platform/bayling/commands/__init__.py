"""What the `bayling` command does for each noun: its arguments and its work."""
