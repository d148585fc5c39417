"""Bytes, JSON and objects to a `Chunk`."""
