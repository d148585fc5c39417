"""What a completion can be turned into."""
