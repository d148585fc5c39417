"""What the events of a stream have to add up to, whatever the stream is."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import attrs
from streamed import fed, read_all

from accumulator import Accumulator, ChatCompletion
from accumulator import events as ev
from accumulator.completion import Audio, Choice, Message
from accumulator.events import Event

Key = tuple[object, ...]


def events_of(pieces: Iterable[bytes]) -> tuple[Accumulator, list[Event]]:
    """Feed the pieces of a body to its end, and collect its events."""
    events: list[Event] = []
    return read_all(pieces, on_event=events.append), events


def told(chunks: Iterable[object], **options: Any) -> list[Event]:
    """Feed chunks to their end, and check and return their events."""
    events: list[Event] = []
    acc = fed(chunks, on_event=events.append, **options)
    check(acc, events)
    return events


def shown(events: Sequence[Event]) -> list[object]:
    """Show events, including what they only put together when asked."""
    return [
        (event, getattr(event, "snapshot", None), getattr(event, "name", None))
        if event.type != "done"
        else (event, event.completion.to_dict())
        for event in events
    ]


class Sums:
    """Adds up deltas, and compares each `.done` with the sum so far."""

    def __init__(self) -> None:
        self.told: dict[Key, Any] = {}  # texts, bytes of audio, and tuples of tokens
        self.done: dict[Key, object] = {}
        self.extras: dict[Key, list[object]] = {}

    def add(self, event: Event) -> None:
        assert "done" not in {kind for (kind, *_) in self.done}, "an event after the last"
        if isinstance(event, ev.ExtraDeltaEvent):
            self.extras.setdefault((event.choice_index, event.path), []).append(event.value)
        elif isinstance(event, ev.DoneEvent):
            self._end(("done",), event)
        elif isinstance(event, ev.ChoiceDoneEvent):
            assert event.choice.index == event.choice_index
            self._end((event.type, event.choice_index), event)
        elif not isinstance(event, (ev.UsageEvent, ev.ProblemEvent)):
            self._add_of_choice(event)

    def _add_of_choice(self, event: Any) -> None:
        kind, _, when = event.type.rpartition(".")
        # What distinguishes texts of one kind: the call, or the field that has the reasoning.
        names = [name for name in ("index", "field") if hasattr(event, name)]
        key: Key = (kind, event.choice_index, *(getattr(event, name) for name in names))
        name = kind.rpartition(".")[2]  # of the field with the event's value
        if kind == "audio":
            data: Key = ("data", event.choice_index)
            if when == "delta":
                assert event.data or event.transcript
                self._grow(data, event.data or b"")
                self._grow(key, event.transcript or "")
            heard = self.told.get(data, b""), self.told.get(key, "")
            if when == "delta":
                assert _heard(event.snapshot) == heard
            else:
                self._end(key, _heard(event.audio), heard)
        elif when == "done":
            self._end(key, getattr(event, name), self.told[key])
        elif kind.startswith("logprobs"):
            assert getattr(event, name)
            assert event.snapshot == self._grow(key, tuple(getattr(event, name)))
        else:
            assert event.delta or (kind.startswith("tool_calls") and key not in self.told)
            assert event.snapshot == self._grow(key, event.delta)

    def _grow(self, key: Key, piece: Any) -> object:
        self.told[key] = self.told.get(key, type(piece)()) + piece
        return self.told[key]

    def _end(self, key: Key, value: object, told: object = None) -> None:
        assert key not in self.done, f"a second {key}"
        assert told is None or value == told, key
        self.done[key] = value


def check(acc: Accumulator, events: Sequence[Event]) -> None:
    """Compare the events of a closed stream with its completion."""
    completion, sums = acc.snapshot(), Sums()
    for event in events:
        sums.add(event)
    last = events[-1]
    assert isinstance(last, ev.DoneEvent)
    assert (last.status, last.completion) == (acc.status, completion)
    problems = [event.problem for event in events if event.type == "problem"]
    assert problems[:100] == [attrs.evolve(problem, count=1) for problem in acc.problems]
    usages = [event.usage for event in events if event.type == "usage"]
    assert (usages[-1] if usages else None) == completion.usage
    assert not any(a == b for a, b in pairwise(usages))
    late = {"content_after_finish", "lone_surrogate"} & {problem.kind for problem in problems}
    _check_choices(completion, sums, late="content_after_finish" in late)
    _check_extras(completion, sums, late=bool(late))
    if not late:
        for key, value in sums.done.items():
            if key[0] in ("content", "refusal", "reasoning"):
                assert value == sums.told[key]


def _check_extras(completion: ChatCompletion, sums: Sums, late: bool) -> None:
    found: dict[Key, object]
    found = {(None, f"chunk.{k}"): v for k, v in completion.extra.items()}
    for choice in completion.choices:
        message, index = choice.message, choice.index
        found |= {(index, f"choice.{k}"): v for k, v in choice.extra.items()}
        if choice.text and "text" not in choice.extra:
            found[index, "choice.text"] = choice.text
        elif choice.text is not None:  # a completion's and, beside a delta, one of its extra
            found.pop((index, "choice.text"), None)
        found |= {(index, f"delta.{k}"): v for k, v in message.extra.items()}
        if message.annotations:
            runs = sums.extras[index, "delta.annotations"]
            if all(isinstance(run, list) for run in runs):
                told = [each for run in runs for each in cast("list[object]", run)]
                assert told == [*message.annotations]
    for key, value in found.items():
        values = sums.extras.get(key)
        if value is None or value in ([], ""):
            continue
        assert values is not None, key
        if isinstance(value, str) and not late:
            assert value in (values[-1], values[0], "".join(map(str, values))), key
        elif isinstance(value, (int, float)):
            assert value == values[-1]


def _check_choices(completion: ChatCompletion, sums: Sums, late: bool) -> None:
    expected: dict[Key, str] = {}
    calls: Counter[Key] = Counter()
    for choice in completion.choices:
        assert ("choice.done", choice.index) in sums.done
        expected |= _texts_of(choice.index, choice.message)
        for call in choice.message.tool_calls or ():
            if call.function is not None:
                calls["function", choice.index, call.function.arguments or ""] += 1
            if call.custom is not None:
                calls["custom", choice.index, call.custom.input or ""] += 1
            if call.function is None and call.custom is None:
                calls["custom" if call.type == "custom" else "function", choice.index, ""] += 1
        if choice.message.audio is not None:
            assert ("audio", choice.index) in sums.done
            data, words = _heard(choice.message.audio)
            assert data == sums.told.get(("data", choice.index), b"")
            expected["audio", choice.index] = words
        _check_tokens(choice, sums)
    told_calls: Counter[Key] = Counter()
    told: dict[Key, str] = {}
    for key, text in sums.told.items():
        kind = str(key[0]).split(".")
        if kind[0] == "tool_calls":
            told_calls[kind[1], key[1], text] += 1
            assert key in sums.done
        elif text and isinstance(text, str):
            told[key] = text
            assert key in sums.done
    assert told == {key: text for key, text in expected.items() if text}
    # After its `.done`, a placeholder may be replaced, and a call turn out to be another tool's.
    assert told_calls == calls or late


def _check_tokens(choice: Choice, sums: Sums) -> None:
    for name in ("content", "refusal"):
        tokens = getattr(choice.logprobs, name, None) or ()
        key = (f"logprobs.{name}", choice.index)
        assert sums.told.get(key, ()) == tokens
        assert (key in sums.done) == bool(tokens)


def _texts_of(index: int, message: Message) -> dict[Key, str]:
    content, thinking = message.content or "", ""
    if not isinstance(content, str):
        parts = [part for part in content if isinstance(part, dict)]
        content = "".join(map(_text, (part for part in parts if part.get("type") == "text")))
        thinking = "".join(map(_text, (part for part in parts if part.get("type") == "thinking")))
    return {
        ("content", index): content,
        ("refusal", index): message.refusal or "",
        ("reasoning", index, "reasoning"): message.reasoning or "",
        ("reasoning", index, "reasoning_content"): message.reasoning_content or "",
        ("reasoning", index, "thinking"): thinking,
    }


def _text(part: object) -> str:
    if not isinstance(part, dict) or part.get("type") not in ("text", "thinking"):
        return ""
    thinking = part.get("thinking") if part["type"] == "thinking" else None
    inner = "".join(map(_text, thinking)) if isinstance(thinking, list) else thinking or ""
    return str(part.get("text") or "") + str(inner)


def _heard(audio: Audio) -> tuple[bytes, str]:
    return base64.b64decode(audio.data or ""), audio.transcript or ""
