"""The scan of a JSON text in fragments finds it complete exactly when a parser would."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import JSON

from accumulator.partial import JsonScan, is_complete

TEXTS = {
    "an object": ('{"a": [1, {"b": "}"}]}', True),
    "an escaped quote": (r'{"a": "\"}"}', True),
    "an escape cut off": ('{"a": "\\', False),
    "blanks behind it": ('{"a": 1} \r\n', True),
    "something behind it": ('{"a": 1} {', False),
    "a bracket too many": ("{}}", False),
    "brackets that do not match": ("[}", False),
    "half a character": (r'{"a": "\ud83d"}', True),
    "halves and a pair": (r'["\ud83d\ud83d\uDE00\uDE00", "\\ud83d"]', True),
    "half a character in a text that is none": (r'{"a": "\ud83d\x"}', False),
    "an open string": ('{"a": "}', False),
    "a string": ('"{"', True),
    "a number": ("12", True),
    "a number too long to ask again at each fragment": ("1" * 401, False),
    "nothing": ("", False),
}


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(("text", "whole"), TEXTS.values(), ids=TEXTS)
def test_a_text_in_fragments_is_whole_or_not(text: str, whole: bool, size: int) -> None:
    scan = JsonScan()
    for start in range(0, len(text), size):
        scan.push(text[start : start + size])
    assert scan.complete(lambda: text) is whole
    assert scan.complete(lambda: text) is whole, "asked again"


@given(JSON, st.data())
def test_the_scan_agrees_with_a_parse_at_every_fragment(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    scan, read = JsonScan(), ""
    while read != text:
        end = data.draw(st.integers(len(read) + 1, len(text)))
        scan.push(text[len(read) : end])
        read = text[:end]
        if len(read) <= 400 or read[0] in '{["':
            assert scan.complete(lambda: read) is is_complete(read)  # noqa: B023  # asked at once
