"""This library, through the same protocol: the body off the socket into `feed_sse`."""

import sys
import urllib.request
from pathlib import Path
from typing import Any

# What is measured is the checkout, not a copy of it installed some time ago.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from accumulator import Accumulator


def reduce(url: str, params: dict[str, Any]) -> object:
    """Feed one body as it comes and return what is known at its end."""
    accumulator = Accumulator()
    with urllib.request.urlopen(f"{url}/chat/completions", data=b"{}") as response:
        while data := response.read1():
            accumulator.feed_sse(data)
    accumulator.close()
    return accumulator.snapshot().to_dict()
