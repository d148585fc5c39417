"""The merge table: which rule joins a field's values, as data (SPEC section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Literal, get_args

from attrs import field, frozen

__all__ = ["DEFAULT_RULES", "POLICIES", "Level", "Policy", "Rules"]

Policy = Literal[
    "first",
    "last",
    "concat",
    "extend",
    "collect",
    "by_index",
    "by_type",
    "merge",
    "larger",
    "blocks",
    "bytes",
    "drop",
]
# "bytes" is only for base64 fragments of audio, "blocks" only for fragments of thinking blocks.
POLICIES: tuple[Policy, ...] = tuple(p for p in get_args(Policy) if p not in ("bytes", "blocks"))

# The rows for fields that no row names, by the kind of JSON value.
_KINDS: dict[type, str] = {str: "<string>", list: "<list>", dict: "<object>"}
_KINDS |= dict.fromkeys((int, float, bool), "<number>")
_PATH = r"(chunk|choice|delta)(\.[^.<]+)*(\.<object>)?\.([^.<]+|<(string|number|list|object)>)"

# The fields that are text in an object of a delta, and in the objects inside it.
_TEXTS = ("text", "content", "summary", "thinking", "arguments", "input", "transcript")


def _others(
    level: str, *, strings: Policy = "last", lists: Policy = "last", objects: Policy = "last"
) -> dict[str, Policy]:
    """Return the rows for a level's fields that no other row names."""
    return {
        f"{level}.<string>": strings,
        f"{level}.<number>": "last",
        f"{level}.<list>": lists,
        f"{level}.<object>": objects,
    }


def _object(level: str) -> dict[str, Policy]:
    """Return the rows for an object in a delta."""
    texts: dict[str, Policy] = {f"{level}.{name}": "concat" for name in _TEXTS}
    return texts | _others(level, lists="by_index", objects="merge")


_ROWS: dict[str, Policy] = {
    # Azure and Copilot send an empty id and model, and a created of 0, before the real ones.
    "chunk.id": "first",
    "chunk.model": "first",
    "chunk.created": "first",
    "chunk.object": "drop",
    "chunk.service_tier": "last",
    "chunk.system_fingerprint": "last",
    "chunk.moderation": "last",
    "chunk.usage": "larger",
    "chunk.obfuscation": "drop",  # OpenAI: random padding against traffic analysis
    "chunk.error": "drop",  # a server error; it ends the stream
    # Perplexity repeats all of its citations in each chunk.
    **_others("chunk", objects="merge"),
    **_others("chunk.<object>", objects="merge"),
    "choice.finish_reason": "last",
    "choice.logprobs.content": "extend",
    "choice.logprobs.refusal": "extend",
    # xAI and Fireworks add lists of their own.
    **_others("choice.logprobs", lists="extend", objects="merge"),
    "choice.usage": "larger",  # Moonshot
    "choice.obfuscation": "drop",
    "choice.message": "last",  # Perplexity repeats in it what the deltas contain
    **_others("choice", lists="extend", objects="merge"),
    **_others("choice.<object>", lists="extend", objects="merge"),
    "delta.role": "first",
    "delta.content": "concat",
    "delta.refusal": "concat",
    "delta.reasoning": "concat",
    "delta.reasoning_content": "concat",
    "delta.function_call.name": "concat",
    "delta.function_call.arguments": "concat",
    "delta.tool_calls.id": "first",
    "delta.tool_calls.type": "first",
    "delta.tool_calls.function.name": "concat",
    "delta.tool_calls.function.arguments": "concat",
    "delta.tool_calls.custom.name": "concat",
    "delta.tool_calls.custom.input": "concat",
    "delta.audio.id": "first",
    "delta.audio.transcript": "concat",
    "delta.audio.data": "bytes",
    "delta.audio.expires_at": "last",
    "delta.reasoning_details": "by_type",  # OpenRouter: by index and type
    "delta.reasoning_details.text": "concat",
    "delta.reasoning_details.summary": "concat",
    **_others("delta.reasoning_details"),
    "delta.thinking_blocks": "blocks",  # LiteLLM
    "delta.annotations": "extend",
    "delta.images": "extend",
    "delta.executed_tools": "by_index",  # Groq sends each entry again, in full
    **_others("delta.executed_tools"),
    # Labels: sent in full, often with every delta.
    **dict.fromkeys(
        [f"delta.{n}" for n in "channel id type name format status signature".split()], "last"
    ),
    **_others("delta", strings="concat", lists="by_index", objects="merge"),
    **_object("delta.<object>"),
    **_object("delta.provider_specific_fields"),
    **_object("delta.provider_specific_fields.<object>"),
    "delta.provider_specific_fields.citation": "collect",  # LiteLLM: one per delta
}

# These fields have more state than one merged value (a call's identity, a sum that must hold,
# whether a choice has ended), or none at all, so their rules are fixed. Only arguments can have
# another, for servers whose every fragment repeats all of them so far.
ARGUMENTS = "delta.tool_calls.function.arguments"
_FIXED = {
    "chunk": frozenset("object choices usage obfuscation error".split()),
    "choice": frozenset("index delta message finish_reason usage obfuscation logprobs".split()),
    "delta": frozenset("tool_calls function_call audio".split()),
}

# Fields with a typed place. Under another policy they are merged like a vendor's field, and then
# read back.
TYPED = {
    "chunk": frozenset("id model created service_tier system_fingerprint moderation".split()),
    "delta": frozenset("role content refusal reasoning reasoning_content annotations".split()),
}


class Level:
    """The rows for one object in the stream: its fields by name, all others by kind, and the
    levels below.
    """

    __slots__ = ("_below", "kinds", "names")

    def __init__(self) -> None:
        self.names: dict[str, Policy] = {}
        self.kinds: dict[type, Policy] = dict.fromkeys(_KINDS, "last")
        self._below: dict[str, Level] = {}

    def add(self, path: Sequence[str], policy: Policy) -> None:
        """Add a row, to a level below if the path leads there."""
        name, *inner = path
        if inner:
            if name not in self._below:
                self._below[name] = self._new_below()
            self._below[name].add(inner, policy)
        elif name.startswith("<"):
            self.kinds |= {type_: policy for type_, kind in _KINDS.items() if kind == name}
        else:
            self.names[name] = policy

    def _new_below(self) -> Level:
        """Return the rows for an object before one of its fields gets its own."""
        others = self._below.get("<object>")
        if others is None:
            return Level()
        level = deepcopy(others)
        level._below.setdefault("<object>", deepcopy(others))
        return level

    def below(self, name: str) -> Level:
        """Return the rows for the objects under a field."""
        return self._below.get(name) or self._below.get("<object>", self)

    def is_idempotent(self, name: str, value: object) -> bool:
        """Return whether a field's value has the same effect twice in a row as once."""
        policy = self.names.get(name) or self.kinds[type(value)]
        if policy == "larger":
            return isinstance(value, (dict, int, float))
        if policy == "merge" and isinstance(value, dict):
            below, fields = self.below(name), value.items()
            return all(item is None or below.is_idempotent(key, item) for key, item in fields)
        return policy in ("first", "last", "drop")


def _completed(rows: Mapping[str, Policy]) -> Mapping[str, Policy]:
    """Fill in the default rows that are not given. Raises ValueError for an invalid row."""
    for path, policy in rows.items():
        if (path, policy) in _ROWS.items():
            continue
        if policy not in POLICIES:
            raise ValueError(f"{path}: no policy {policy!r}; choose from {', '.join(POLICIES)}")
        if not re.fullmatch(_PATH, path):
            raise ValueError(
                f"{path!r} is not a path; a path is chunk., choice. or delta. and a field's name, "
                "such as 'delta.channel', or one of <string>, <number>, <list>, <object>; "
                "<object> may be followed by one more of these"
            )
        level, name = path.split(".")[:2]
        if name in _FIXED[level] and (path, policy) != (ARGUMENTS, "last"):
            raise ValueError(f"the rule of {path!r} is fixed; other fields of {level} are free")
    return {**_ROWS, **rows}


@frozen(slots=False)
class Rules:
    """A merge table: rows of path and policy, which replace or extend those of `DEFAULT_RULES`.

    A path is a level (`chunk`, `choice`, `delta`) and a field's name, or, for fields that no row
    names, a kind of value: `<string>`, `<number>`, `<list>`, `<object>`. `delta.<object>.text` is
    the field `text` in any other object of a delta.

    Raises ValueError for a path that is not a level and a field, for one whose rule is fixed, and
    for an unknown policy; the message lists the choices.
    """

    rows: Mapping[str, Policy] = field(converter=_completed)

    def __repr__(self) -> str:
        own = {path: policy for path, policy in self.rows.items() if policy != _ROWS.get(path)}
        return f"DEFAULT_RULES.replace({own})" if own else "DEFAULT_RULES"

    @cached_property
    def levels(self) -> Mapping[str, Level]:
        """The rows by level, except those of typed fields."""
        top = Level()
        for path, policy in self.rows.items():
            if not self._is_typed(path):
                top.add(path.split("."), policy)
        levels = {name: top.below(name) for name in _FIXED}
        levels["choice.logprobs"] = levels["choice"].below("logprobs")
        levels["delta.<object>"] = levels["delta"].below("<object>")
        return levels

    def _is_typed(self, path: str) -> bool:
        """Return whether a field is merged by its type. Values that do not fit go by their kind."""
        level, _, names = path.partition(".")
        name, _, inner = names.partition(".")
        if name in _FIXED[level]:
            return name != "logprobs" or not inner.startswith("<")
        return name in TYPED.get(level, ()) and name not in self.moved[level]

    @cached_property
    def moved(self) -> Mapping[str, frozenset[str]]:
        """The typed fields of each level whose policy is not the default."""
        return {
            level: frozenset(n for n in names if self.rows[f"{level}.{n}"] != _ROWS[f"{level}.{n}"])
            for level, names in TYPED.items()
        }

    @cached_property
    def moves(self) -> bool:
        """Whether a field that typed decoders read has a policy other than the default."""
        # Details of reasoning have rows of their own, but the decoders know them.
        known = ["delta", "reasoning_details"]
        changed = self.rows.items() - _ROWS.items()
        return any(self.moved.values()) or any(p.split(".")[:2] == known for p, _ in changed)

    @cached_property
    def is_cumulative(self) -> bool:
        """Whether each fragment of a call's arguments repeats all of them so far."""
        return self.rows[ARGUMENTS] == "last"

    @cached_property
    def digest(self) -> int:
        """A checksum of the rows: a checkpoint must not be resumed under other ones."""
        from zlib import crc32  # noqa: PLC0415  # takes time to import, and few streams are kept

        return crc32(repr(sorted(self.rows.items())).encode())

    def replace(self, rows: Mapping[str, Policy]) -> Rules:
        """Return a table in which the given rows replace or extend this one's.

        Raises ValueError as `Rules` itself does.
        """
        return Rules({**self.rows, **rows})


DEFAULT_RULES = Rules(_ROWS)
