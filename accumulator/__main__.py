"""Runs the command: `python -m accumulator`."""

from .cli import main

raise SystemExit(main())
