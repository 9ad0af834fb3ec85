"""Where it runs: this machine, or a Ray cluster that is already there."""
