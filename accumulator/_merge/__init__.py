"""A `Chunk` into the state; the state to a completion and to events."""
