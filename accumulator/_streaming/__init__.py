"""Other people's streams."""
