"""Every form of input to a reducer."""
