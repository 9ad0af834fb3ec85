"""Where it runs: this machine, a Ray cluster that is already there, or Kubernetes."""
