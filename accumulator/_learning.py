"""What a chunk changes, and the template that is learnt from its line.

A chunk may bring one text, in one field or two, and beside it what a template has gaps for: its
logprobs, padding, counts of usage, one field of a vendor's. Everything else of it must be what was
applied before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import msgspec
from msgspec import Struct

from ._decode.chunk import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    Delta,
    FunctionFragment,
    JsonObject,
    Logprobs,
    TokenLogprob,
    ToolCallFragment,
    Usage,
)
from ._merge.json_merge import PART_TYPES, growing_name
from ._template import COUNTS, Gap, Template, kind_of_tokens

__all__ = ["learn_template", "the_change"]

Decode = Callable[[bytes], Chunk]


class Change(NamedTuple):
    """The text that a chunk brings: of which choice, of which call, and in which field; `twin` is
    another field that brings it, too, or a vendor's list. `inside` is the one part or entry that
    it stands in, if the field is "parts" or the twin a vendor's.
    """

    field: str
    choice: Choice
    fragment: ToolCallFragment | None = None
    twin: str | None = None
    inside: JsonObject | None = None


# Of a line: its JSON, before which there may be a blank.
_DATA = slice(len("data:"), None)
_TEXT_FIELDS = ("content", "reasoning", "reasoning_content", "refusal")
_TWINS = ["reasoning", "reasoning_content"]  # of which vLLM sends both
# `re` compiles these, and keeps them, when a stream needs them: at import they would be dear.
_STRING = rb'"%s": ?"((?:[^"\\]|\\.)*)"'
_COUNT = rb'"%s": ?([0-9]+)'
_LIST = rb'"content": ?\['
_PROBES = {
    "choice": b"4001",
    "call": b"4002",
    "text": b"probe",
    "twin": b"other",
    "padding": b"probe",
    "vendor": b'"probe"',
    "completion_tokens": b"4003",
    "total_tokens": b"4004",
    "reasoning_tokens": b"4005",
    "created": b"4006",
}
# Fields of a chunk that are not merged like those that the API does not name.
_NOT_MERGED = frozenset({*Chunk.__struct_fields__, "error", "message", "annotations", "content"})


def learn_template(
    line: bytes,
    chunk: Chunk,
    change: Change,
    decode: Decode,
    *,
    many: bool,
    calls: frozenset[int],
) -> Template | None:
    """Learn from the line of a chunk and `the_change` of it, if there are gaps for all of it.

    `many` says that choices take turns, `calls` name calls that were seen to.
    """
    field, choice, fragment, twin, inside = change
    gaps = [
        _one(_STRING % name.encode(), line, role)
        for name, role in zip(_names(change), ("text", "twin"), strict=False)
    ]
    if choice.logprobs is not None:
        gaps = [_with_list(line, gaps[0], choice)]
    if chunk.obfuscation is not None or choice.obfuscation is not None:
        gaps.append(_one(_STRING % b"obfuscation", line, "padding"))
    gaps += [_one(_COUNT % name.encode(), line, name) for name in _counts(chunk)]
    vendor = None if chunk.extra is None else next(iter(chunk.extra))
    if vendor is not None:
        gaps.append(_value_gap(line, vendor, chunk))
    if None in gaps:
        return None
    # Some servers stamp each chunk with its own second.
    created = _one(_COUNT % b"created", line, "created") if chunk.created else None
    entries = range(0)  # where a vendor's stand, which have indices of their own
    if twin is not None and inside is not None:
        entries = _span_of(line, twin, chunk)
    indices = [
        Gap(*match.span(1), "")
        for match in re.finditer(_COUNT % b"index", line)
        if match.start() not in entries
    ]
    orders: list[tuple[str, ...]] = [("choice",)]
    several_calls = False
    if fragment is not None:
        # The choice's `index` stands before its delta or behind it, the call's within.
        orders = [("choice", "call"), ("call", "choice")]
        # Calls that come one after another are constant, those that take turns are not.
        several_calls = fragment.index in calls
    for order in orders:
        if len(indices) != len(order):
            return None
        for gap, role in zip(indices, order, strict=True):
            gap.role = role
        wanted = [gap for gap in indices if (several_calls if gap.role == "call" else many)]
        ordered = sorted([*cast("list[Gap]", gaps), *wanted], key=lambda gap: gap.start)
        tried = ordered
        if created is not None:
            tried = sorted([*ordered, created], key=lambda gap: gap.start)
        if _is_sound(line, tried, change, vendor, decode):
            call = None if fragment is None else fragment.index
            template = Template(
                line, ordered, field, choice.index or 0, call, vendor, twin, created
            )
            read = template.read([line[template.gap]]) if template.is_usable else None
            return None if read is None else template
    return None


def the_change(chunk: Chunk, *, many: bool) -> Change | None:
    """Find the one text that a chunk brings; None if it brings more than a template has gaps for,
    or changes the state otherwise.
    """
    if not chunk.choices or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    if chunk.moderation is not None or choice.extra is not None:
        return None
    if chunk.extra is not None and (
        len(chunk.extra) != 1 or not _NOT_MERGED.isdisjoint(chunk.extra)
    ):
        return None
    usage = chunk.usage
    if usage is not None and (
        usage.extra is not None
        or (
            usage.prompt_tokens_details is not None
            and usage.prompt_tokens_details.extra is not None
        )
        or (
            usage.completion_tokens_details is not None
            and usage.completion_tokens_details.extra is not None
        )
    ):
        return None
    delta = choice.delta
    if delta is None or choice.index is None or choice.finish_reason or choice.usage is not None:
        return None
    present = [name for name in _TEXT_FIELDS if getattr(delta, name) is not None]
    # An empty text beside another adds nothing: Ollama and OpenRouter send `content` so while a
    # model reasons.
    texts = [name for name in present if getattr(delta, name)]
    beside = len(present) + bool(delta.tool_calls) > 1
    more = (delta.role, delta.parts, delta.extra, choice.logprobs)
    if many and (beside or any(value is not None for value in more)):
        return None  # another choice may have none yet
    if delta.tool_calls and len(delta.tool_calls) == 1 and not texts and choice.logprobs is None:
        fragment = delta.tool_calls[0]
        function = fragment.function
        if function is None or function.arguments is None or fragment.index is None:
            return None
        others = (fragment.id, fragment.type, fragment.custom, fragment.extra)
        if any(other is not None for other in (*others, function.name, function.extra)):
            return None
        return Change("arguments", choice, fragment) if _brings_only(delta, "tool_calls") else None
    if delta.parts is not None:
        if texts or choice.logprobs is not None or not _brings_only(delta, "parts"):
            return None
        part = delta.parts[0] if len(delta.parts) == 1 else None
        growing = _growing(part)
        return None if growing is None else Change("parts", choice, inside=cast("JsonObject", part))
    texts = texts or present
    if len(texts) != 1 and texts != _TWINS:
        return None
    if delta.extra is not None:
        if len(texts) > 1 or choice.logprobs is not None:
            return None
        if len(delta.extra) > 1 or not _brings_only(delta, "extra"):
            return None
        # OpenRouter sends what a model reasons in the one entry of `reasoning_details`, too.
        [(name, entries)] = delta.extra.items()
        entry = entries[0] if isinstance(entries, list) and len(entries) == 1 else None
        if not isinstance(entry, dict) or growing_name(entry) is None:
            return None
        return Change(texts[0], choice, twin=name, inside=entry)
    if not _brings_only(delta):
        return None
    if choice.logprobs is not None and (
        not choice.logprobs.content
        or choice.logprobs.refusal is not None
        or choice.logprobs.extra is not None
        or texts != ["content"]
    ):
        return None
    return Change(texts[0], choice, twin=texts[1] if len(texts) > 1 else None)


_SILENT_FIELDS = tuple(
    name for name in Delta.__struct_fields__ if name not in ("role", *_TEXT_FIELDS)
)


def _brings_only(delta: Delta, field: str | None = None) -> bool:
    """Tell whether a delta has nothing but that and texts."""
    return all(name == field or getattr(delta, name) is None for name in _SILENT_FIELDS)


def _growing(part: object) -> tuple[JsonObject, str] | None:
    """Find the object in a part, or the part itself, whose text may grow, and that text's name,
    which is its type's.
    """
    while isinstance(part, dict):
        name = part.get("type")
        if name not in PART_TYPES:
            return None
        text = part.get(name)
        if isinstance(text, str):
            return part, name
        part = text[0] if isinstance(text, list) and len(text) == 1 else None
    return None


def _names(change: Change) -> list[str]:
    """Name the strings in which a change's text stands."""
    if change.field == "parts":
        growing = _growing(change.inside)
        return [] if growing is None else [growing[1]]
    twin = change.twin if change.inside is None else growing_name(change.inside)
    return [change.field] if twin is None else [change.field, twin]


def _one(pattern: bytes, line: bytes, role: str) -> Gap | None:
    found = list(re.finditer(pattern, line))
    return Gap(*found[0].span(1), role) if len(found) == 1 else None


class _RawLogprobs(Struct):
    content: msgspec.Raw = msgspec.Raw(b"")


class _RawChoice(Struct):
    logprobs: _RawLogprobs


class _RawChunk(Struct):
    choices: list[_RawChoice]


_decode_raw = msgspec.json.Decoder(_RawChunk).decode


def _with_list(line: bytes, text: Gap | None, choice: Choice) -> Gap | None:
    """Find the gap of content and the list of its logprobs, which stands behind it."""
    found = list(re.finditer(_LIST, line))
    if len(found) != 1 or text is None:
        return None
    raw = bytes(_decode_raw(line[_DATA]).choices[0].logprobs.content)
    start = found[0].end() - 1
    if start < text.end or not line.startswith(raw, start):
        return None
    end = start + len(raw)
    probe = b"probe" + line[text.end : start] + b'[{"token":"probe"}]'
    kind = kind_of_tokens(line[text.start : end])
    return None if kind is None else Gap(text.start, end, "tokens", probe, kind)


def _counts(chunk: Chunk) -> list[str]:
    """Name the counts of a chunk that may be others in the next."""
    usage = chunk.usage
    if usage is None:
        return []
    return [name for name in COUNTS if getattr(_count_place(usage, name), name, None)]


def _count_place(usage: Usage, name: str) -> Usage | CompletionTokensDetails | None:
    return usage.completion_tokens_details if name == "reasoning_tokens" else usage


def _slot_of(level: Chunk | Delta, name: str) -> str:
    """Find the attribute that a vendor's field is read into."""
    return level.__struct_fields__[level.__struct_encode_fields__.index(name)]


def _span_of(line: bytes, name: str, chunk: Chunk) -> range:
    """Find where the value of a vendor's field of the delta stands."""
    delta = cast("Delta", (chunk.choices or [])[0].delta)
    raw = bytes(getattr(delta, _slot_of(delta, name)))
    start = line.find(raw)
    return range(start, start + len(raw))


def _value_gap(line: bytes, name: str, chunk: Chunk) -> Gap | None:
    """Find the raw value of a field that the API does not name."""
    key = msgspec.json.encode(name) + b":"
    if line.count(key) != 1:
        return None
    start = line.index(key) + len(key)
    start += line[start : start + 1] == b" "
    text = bytes(getattr(chunk, _slot_of(chunk, name)))
    return Gap(start, start + len(text), "vendor") if line.startswith(text, start) else None


def _is_sound(
    line: bytes, gaps: Sequence[Gap], change: Change, vendor: str | None, decode: Decode
) -> bool:
    """Try a template: other values at its gaps must be read as those values at their places."""
    probe, end = b"", 0
    for gap in gaps:
        probe += line[end : gap.start] + (gap.probe or _PROBES[gap.role])
        end = gap.end
    try:
        read = decode((probe + line[end:])[_DATA])
        expected = decode(line[_DATA])
    except ValueError:
        return False
    choice = (expected.choices or [])[0]
    delta = choice.delta or Delta()
    for gap in gaps:
        match gap.role:
            case "choice":
                choice.index = 4001
            case "created":
                expected.created = 4006
            case "vendor":
                slot = _slot_of(expected, cast("str", vendor))
                setattr(expected, slot, msgspec.Raw(_PROBES["vendor"]))
            case name if name in COUNTS:
                place = _count_place(cast("Usage", expected.usage), name)
                setattr(place, name, int(_PROBES[name]))
            case "tokens":
                delta.content = "probe"
                cast("Logprobs", choice.logprobs).content = [TokenLogprob(token="probe")]
            case "padding" if expected.obfuscation is not None:
                expected.obfuscation = "probe"
            case "padding":
                choice.obfuscation = "probe"
            case "twin" if change.inside is not None:
                twin = cast("str", change.twin)
                span = _span_of(line, twin, expected)
                probe = line[span.start : gap.start] + _PROBES["twin"] + line[gap.end : span.stop]
                setattr(delta, _slot_of(delta, twin), msgspec.Raw(probe))
            case "twin":
                setattr(delta, cast("str", change.twin), "other")
            case "call":
                cast("list[ToolCallFragment]", delta.tool_calls)[0].index = 4002
            case _ if change.field == "parts":
                [content] = cast("list[object]", delta.content)
                part, name = cast("tuple[JsonObject, str]", _growing(content))
                part[name] = "probe"
            case _ if change.field == "arguments":
                [fragment] = cast("list[ToolCallFragment]", delta.tool_calls)
                cast("FunctionFragment", fragment.function).arguments = "probe"
            case _:
                setattr(delta, change.field, "probe")
    return read == expected
