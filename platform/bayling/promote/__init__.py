"""The promote stage: register the candidate, let the gate decide, move the aliases."""
