"""A text is the same however it arrived, and is not joined before it is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from accumulator._decode.text import COMPACT_AT, Text, heal, healed

PIECES = ["", "a", "é", "日本", "😀", "b" * 40] * 5


def one_by_one(text: Text, pieces: list[str]) -> None:
    for piece in pieces:
        text.append(piece)


def a_few(text: Text, pieces: list[str]) -> None:
    for i in range(0, len(pieces), 3):
        text.extend(pieces[i : i + 3])


def many(text: Text, pieces: list[str]) -> None:
    text.extend(pieces)


WAYS: list[Callable[[Text, list[str]], None]] = [one_by_one, a_few, many]


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("then", WAYS)
@pytest.mark.parametrize("looked", [False, True])
def test_fragments_are_joined_however_they_came(
    first: Callable[[Text, list[str]], None], then: Callable[[Text, list[str]], None], looked: bool
) -> None:
    text = Text("at first ")
    expected = "at first "
    for way, pieces in ((first, PIECES), (then, PIECES[::-1]), (first, PIECES[:1])):
        way(text, pieces)
        expected += "".join(pieces)
        assert len(text.fragments) < COMPACT_AT
        if looked:
            assert str(text) == expected
    assert text.equals(expected)
    assert not text.equals(expected[:-1])
    assert not text.equals(expected + "x")
    assert [str(text), str(text)] == [expected, expected]


@pytest.mark.parametrize("way", WAYS)
def test_a_text_is_true_once_there_is_something_in_it(
    way: Callable[[Text, list[str]], None],
) -> None:
    text = Text()
    way(text, [""] * 20)
    assert not text
    assert text.equals("")
    way(text, ["a"])
    assert text
    assert str(text) == "a"


def test_a_half_that_waits_is_compared_with_the_text_before_it() -> None:
    text = Text("a")
    text.half = "\ud83d"
    assert text
    assert not text.equals("a")
    assert text.equals("a\ud83d")


def test_a_half_that_was_replaced_is_the_half_that_comes_again() -> None:
    text = Text("\ufffda")
    assert text.equals("\ude00a")
    assert not text.equals("\ude00a\ud83d")


HEALED: list[tuple[object, object, int]] = [
    ("plain é", "plain é", 0),
    ("\ud83d\ude00", "😀", 0),
    ("\ud83d", "\ufffd", 1),
    ("\ude00\ud83d", "\ufffd\ufffd", 2),
    ("a\ud83d\ude00\ud83db", "a😀\ufffdb", 1),
    (["\ud83d", {"\ud83d\ude00": ["\ude00"]}], ["\ufffd", {"😀": ["\ufffd"]}], 2),
    ({"\ud83d": None, "b": 5}, {"\ufffd": None, "b": 5}, 1),
    (5, 5, 0),
]


@pytest.mark.parametrize(("value", "expected", "lone"), HEALED)
def test_halves_are_joined_or_replaced_and_counted(
    value: object, expected: object, lone: int
) -> None:
    assert healed(value) == (expected, lone)
    if isinstance(value, str):
        assert heal(value) == (expected, lone)
