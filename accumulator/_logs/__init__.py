"""Recorded logs on one machine: the commands `reduce` and `inspect`."""
