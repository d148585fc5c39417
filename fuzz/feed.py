"""A chunk gives the same result as text, line, mapping, object or event, and no input raises.

Only `LimitExceededError` may be raised, and it leaves the state as it was. The result is that of
the second reducer, the caller's chunk is neither changed nor kept, and `from_dict` reads a result
back unchanged.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from types import SimpleNamespace

import atheris
import harness

with atheris.instrument_imports(include=["accumulator"]):
    from accumulator import Accumulator, ChatCompletion, LimitExceededError, Limits
from judged import assert_as_judged  # above, its import would precede the instruments
from streamed import spoil

_TIGHT = Limits(choices=2, tool_calls=2, depth=8, event_bytes=2000, total_bytes=6000)


def check(data: bytes) -> None:
    texts = [text for text in data.replace(b"\r", b"").split(b"\n") if text.strip()]
    by_text, by_line, by_value, by_event, by_object, by_model = (Accumulator() for _ in range(6))
    exceeded = 0
    fed: list[tuple[object, str]] = []
    for text in texts:
        value = _chunk(text)
        try:
            by_text.feed(text)
        except LimitExceededError:
            exceeded += 1
            continue  # nothing of it was applied, so the others need not see it
        by_line.feed_line(b"data: " + text + b"\n")
        by_line.feed_line(b"\n")
        by_event.feed_sse(b"data: " + text + b"\n\n")
        by_value.feed(text if value is None else value)
        has_choices = value is not None and "choices" in value  # like every SDK's object
        by_object.feed(_as_object(value) if has_choices else text)
        by_model.feed(_as_model(value) if has_choices else text)
        if value is not None:
            fed.append((value, text.decode()))
    for chunk, was in fed:
        assert json.dumps(chunk) == json.dumps(json.loads(was)), "the caller's chunk was changed"
        spoil(chunk)
    expected = _outcome(by_text)
    for acc in (by_line, by_value, by_event, by_object, by_model):
        assert _outcome(acc) == expected
    if not exceeded:
        assert_as_judged(by_text, b"".join(b"data: %b\n\n" % text for text in texts))
    _check_read_back(by_text)
    _check_limits(texts)


def _chunk(text: bytes) -> dict[str, object] | None:
    """Return the chunk that a client's own decoder would return, or None if it would refuse."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _finite(text: str) -> float:
    if float(text) in (float("inf"), float("-inf")):
        raise ValueError(text)
    return float(text)


class _Model:
    """An object like pydantic's: the fields it knows are in `__dict__`, the others separate."""

    __slots__ = ("__dict__", "__pydantic_extra__")

    def __init__(self, fields: dict[str, object]) -> None:
        self.__dict__.update({name: v for name, v in fields.items() if name in _KNOWN})
        self.__pydantic_extra__ = {n: v for n, v in fields.items() if n not in _KNOWN} or None


_MODELS = {"choices", "delta", "tool_calls", "function", "logprobs", "usage"}
_KNOWN = _MODELS | set(
    "id object created model service_tier system_fingerprint index finish_reason role content "
    "refusal name arguments type".split()
)


def _as_model(value: object) -> object:
    """Turn a chunk into objects like pydantic's; fields without a class stay as they are."""
    if isinstance(value, list):
        return [_as_model(item) for item in value]
    if not isinstance(value, dict):
        return value
    return _Model(
        {
            name: _as_model(item) if name in _MODELS else copy.deepcopy(item)
            for name, item in value.items()
        }
    )


def _as_object(value: object) -> object:
    """Turn a chunk into objects all the way down."""
    if isinstance(value, list):
        return [_as_object(item) for item in value]
    if not isinstance(value, dict):
        return value
    if any(name.startswith("_") for name in value):  # private to an object, not a field of the wire
        return copy.deepcopy(value)
    return SimpleNamespace(**{name: _as_object(item) for name, item in value.items()})


def _result(acc: Accumulator) -> tuple[dict[str, object], str, Mapping[str, int]]:
    return acc.snapshot().to_dict(), acc.status, acc.problem_counts


def _outcome(acc: Accumulator) -> tuple[object, ...]:
    acc.close()
    # A model keeps what it has no field for after the rest, so the order of fields may differ.
    problems = sorted((p.event, p.kind, p.path or "") for p in acc.problems)
    completion = json.dumps(acc.snapshot().to_dict(), sort_keys=True)
    return completion, acc.status, problems, acc.problem_counts


def _check_read_back(acc: Accumulator) -> None:
    completion = acc.snapshot()
    assert json.loads(completion.to_json()) == completion.to_dict()
    # A value of a wrong type stays in the dict; in Groq's own usage it is not even a problem.
    if "invalid_field" not in acc.problem_counts and "x_groq" not in completion.extra:
        assert ChatCompletion.from_dict(completion.to_dict()).to_dict() == completion.to_dict()
    for choice in completion.choices:
        choice.message.to_message()


def _check_limits(texts: list[bytes]) -> None:
    acc = Accumulator(limits=_TIGHT)
    for text in texts:
        before = _result(acc)
        try:
            acc.feed(text)
        except LimitExceededError:
            assert _result(acc) == before
    completion = acc.snapshot()
    assert len(completion.choices) <= 2
    assert all(len(choice.message.tool_calls or ()) <= 2 for choice in completion.choices)


def _lines(body: bytes) -> bytes:
    """Return the chunks of a body, one per line."""
    lines = body.replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


if __name__ == "__main__":
    harness.run(check, "feed", seeds=_lines)
