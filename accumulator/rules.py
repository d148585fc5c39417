"""The merge table: which rule joins a field's values, as data (SPEC section 3)."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
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
# "bytes" is for base64 fragments of audio alone, "blocks" for fragments of thinking blocks.
POLICIES: tuple[Policy, ...] = tuple(p for p in get_args(Policy) if p not in ("bytes", "blocks"))

# Which fields the four kinds of JSON value fall under when no row names them.
_KINDS = {
    str: "<string>",
    int: "<number>",
    float: "<number>",
    bool: "<number>",
    list: "<list>",
    dict: "<object>",
}

# What is in an object of a delta, and in the objects in it.
_OBJECT: dict[str, Policy] = {
    **dict.fromkeys(
        ("text", "content", "summary", "thinking", "arguments", "input", "transcript"), "concat"
    ),
    "<string>": "last",
    "<number>": "last",
    "<list>": "by_index",
    "<object>": "merge",
}

_ROWS: dict[str, Policy] = {
    # Azure and Copilot send id and model empty, and created 0, before the real ones.
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
    "chunk.<string>": "last",
    "chunk.<number>": "last",
    "chunk.<list>": "last",  # Perplexity repeats all of its citations in each chunk
    "chunk.<object>": "merge",
    "chunk.<object>.<string>": "last",
    "chunk.<object>.<number>": "last",
    "chunk.<object>.<list>": "last",
    "chunk.<object>.<object>": "merge",
    "choice.finish_reason": "last",
    "choice.logprobs.content": "extend",
    "choice.logprobs.refusal": "extend",
    "choice.logprobs.<string>": "last",
    "choice.logprobs.<number>": "last",
    "choice.logprobs.<list>": "extend",  # xAI and Fireworks bring lists of their own
    "choice.logprobs.<object>": "merge",
    "choice.usage": "larger",  # Moonshot
    "choice.obfuscation": "drop",
    "choice.message": "last",  # Perplexity repeats in it what the deltas bring
    "choice.<string>": "last",
    "choice.<number>": "last",
    "choice.<list>": "extend",
    "choice.<object>": "merge",
    "choice.<object>.<string>": "last",
    "choice.<object>.<number>": "last",
    "choice.<object>.<list>": "extend",
    "choice.<object>.<object>": "merge",
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
    "delta.reasoning_details.<string>": "last",
    "delta.reasoning_details.<number>": "last",
    "delta.reasoning_details.<list>": "last",
    "delta.reasoning_details.<object>": "last",
    "delta.thinking_blocks": "blocks",  # LiteLLM
    "delta.annotations": "extend",
    "delta.images": "extend",
    "delta.executed_tools": "by_index",  # Groq sends each entry again, whole
    "delta.executed_tools.<string>": "last",
    "delta.executed_tools.<number>": "last",
    "delta.executed_tools.<list>": "last",
    "delta.executed_tools.<object>": "last",
    # Labels: sent whole, often with every delta.
    "delta.channel": "last",
    "delta.id": "last",
    "delta.type": "last",
    "delta.name": "last",
    "delta.format": "last",
    "delta.status": "last",
    "delta.signature": "last",
    "delta.<string>": "concat",
    "delta.<number>": "last",
    "delta.<list>": "by_index",
    "delta.<object>": "merge",
    **{f"delta.<object>.{name}": policy for name, policy in _OBJECT.items()},
    # LiteLLM: one citation a delta.
    **{f"delta.provider_specific_fields.{name}": policy for name, policy in _OBJECT.items()},
    **{
        f"delta.provider_specific_fields.<object>.{name}": policy
        for name, policy in _OBJECT.items()
    },
    "delta.provider_specific_fields.citation": "collect",
}

# Their state is more than one merged value (a call's identity, a sum that must hold, whether a
# choice has ended), or none at all, so they have one rule.
# A server whose every fragment is the whole so far is read by another rule for this one.
ARGUMENTS = "delta.tool_calls.function.arguments"
_FIXED = {
    "chunk": frozenset({"object", "choices", "usage", "obfuscation", "error"}),
    "choice": frozenset(
        {"index", "delta", "message", "finish_reason", "usage", "obfuscation", "logprobs"}
    ),
    "delta": frozenset({"tool_calls", "function_call", "audio"}),
}

# Fields with a typed place; under another policy they are merged like a vendor's field and read
# back.
TYPED = {
    "chunk": frozenset(
        {"id", "model", "created", "service_tier", "system_fingerprint", "moderation"}
    ),
    "delta": frozenset(
        {"role", "content", "refusal", "reasoning", "reasoning_content", "annotations"}
    ),
}


class Level:
    """The rows of one object of the stream: its fields by name, the rest by kind, and the
    levels below.
    """

    __slots__ = ("_below", "_other", "kinds", "names")

    def __init__(self) -> None:
        self.names: dict[str, Policy] = {}
        self.kinds: dict[type, Policy] = {}
        self._below: dict[str, Level] = {}
        self._other = self

    def below(self, name: str) -> Level:
        """Look up the rows for the objects that stand under a field."""
        return self._below.get(name, self._other)

    def unnamed(self, value: object) -> Policy:
        """Look up the rule for a value that is not of its field's type."""
        return self.kinds[type(value)]

    def is_idempotent(self, name: str, value: object) -> bool:
        """Return whether a field's value that comes twice in a row makes what it makes once."""
        policy = self.names.get(name) or self.kinds[type(value)]
        if isinstance(value, dict):
            if policy == "merge":
                below = self.below(name)
                return all(
                    item is None or below.is_idempotent(key, item) for key, item in value.items()
                )
            return policy in ("first", "last", "drop", "larger")
        if policy == "larger":
            return isinstance(value, (int, float))
        return policy in ("first", "last", "drop")

    @classmethod
    def compile(cls, rows: Mapping[str, Policy], prefix: str) -> Level:
        level = cls()
        own: dict[str, Policy] = {
            path[len(prefix) + 1 :]: p for path, p in rows.items() if path.startswith(prefix + ".")
        }
        for path, policy in own.items():
            if "." not in path and not path.startswith("<"):
                level.names[path] = policy
        for type_, kind in _KINDS.items():
            level.kinds[type_] = own.get(kind, "last")
        if not prefix.endswith("<object>"):
            for name in {path.split(".")[0] for path in own if "." in path}:
                level._below[name] = cls.compile(rows, f"{prefix}.{name}")
            level._other = level._below.get("<object>", level)
        return level


def _completed(rows: Mapping[str, Policy]) -> Mapping[str, Policy]:
    """Add the rows that are not given. Raises ValueError for one that can do nothing."""
    for path, policy in rows.items():
        if policy == _ROWS.get(path):
            continue
        if policy not in POLICIES:
            raise ValueError(f"{path}: no policy {policy!r}; there are {', '.join(POLICIES)}")
        level, *names = path.split(".")
        if level not in _FIXED or not names or not _is_field(names):
            raise ValueError(
                f"no path {path!r}; a path is chunk., choice. or delta. and a field's name, "
                "such as 'delta.channel', or one of <string>, <number>, <list>, <object>; "
                "behind <object> may stand one of these more"
            )
        if path == ARGUMENTS and policy == "last":
            continue
        if names[0] in _FIXED[level]:
            raise ValueError(f"the rule of {path!r} is fixed; other fields of {level} are free")
    return {**_ROWS, **rows}


def _is_field(names: list[str]) -> bool:
    """Return whether names are a path to a field of a level, or to a kind of field."""
    *above, last = names
    kinds = set(_KINDS.values())
    if "<object>" in above[:-1] or not all(names):
        return False
    return all(name == "<object>" or "<" not in name for name in above) and (
        last in kinds or "<" not in last
    )


@frozen(slots=False)
class Rules:
    """A merge table: rows of path and policy, which replace or extend those of `DEFAULT_RULES`.

    A path is a level (`chunk`, `choice`, `delta`) and a field's name, or a kind of value that no
    row names: `<string>`, `<number>`, `<list>`, `<object>`. `delta.<object>.text` is a field of
    any other object of a delta.

    Raises ValueError for a path that is no level and field, for one whose rule is fixed, and for an
    unknown policy; the message names the choices.
    """

    rows: Mapping[str, Policy] = field(converter=_completed)

    def __repr__(self) -> str:
        own = {path: policy for path, policy in self.rows.items() if policy != _ROWS.get(path)}
        return f"DEFAULT_RULES.replace({own})" if own else "DEFAULT_RULES"

    @cached_property
    def levels(self) -> Mapping[str, Level]:
        """The rows by level, but for those of typed fields."""
        rows: dict[str, Policy] = {
            path: policy for path, policy in self.rows.items() if not self._is_typed(path)
        }
        return {
            name: Level.compile(rows, name)
            for name in ("chunk", "choice", "choice.logprobs", "delta", "delta.<object>")
        }

    def _is_typed(self, path: str) -> bool:
        """Return whether a field is merged by its type; what does not fit that goes by its kind."""
        level, _, names = path.partition(".")
        name, _, inner = names.partition(".")
        if name in _FIXED[level]:
            return name != "logprobs" or not inner.startswith("<")
        return name in TYPED.get(level, ()) and self.rows[path] == _ROWS.get(path)

    @cached_property
    def moved(self) -> Mapping[str, frozenset[str]]:
        """The typed fields of each level that have another policy than the default."""
        return {
            level: frozenset(
                n for n in names if self.rows.get(f"{level}.{n}") != _ROWS.get(f"{level}.{n}")
            )
            for level, names in TYPED.items()
        }

    @cached_property
    def moves(self) -> bool:
        """Whether any typed field has another policy than the default."""
        return any(self.moved.values())

    @cached_property
    def digest(self) -> int:
        """A number for the rows in a checkpoint, which another table must not go on from."""
        return crc32(repr(sorted(self.rows.items())).encode())

    def replace(self, rows: Mapping[str, Policy]) -> Rules:
        """Return a table in which the given rows replace or extend this one's.

        Raises ValueError as `Rules` itself does.
        """
        return Rules({**self.rows, **rows})


DEFAULT_RULES = Rules(_ROWS)
