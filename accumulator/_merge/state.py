"""What has arrived of a stream, and its status. `reducer` has every transition of this state.

Laws:

- Choices, calls and list entries are looked up in dicts by index: a server may send any integer,
  in any order, and each costs one entry.
- Strings stay in fragments, in `Text`s, and lists are appended to: nothing costs more because more
  has arrived.
- What a level has no field for is merged by the rules into its `extra`; the result has it there.
- `_checkpoint` writes these classes as they are, without the fields that still have their default.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Literal

from msgspec import Struct, field

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text

Status = Literal["open", "complete", "truncated", "failed"]
Tool = Literal["function", "custom"]
_order_of = attrgetter("order")


class ToolState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A function or custom tool as far as it has arrived; `text` is its arguments or its input."""

    name: Text | None = None
    text: Text | None = None  # an `ArgumentsText` of a function
    extra: JsonObject | None = None

    @property
    def came(self) -> bool:
        """Whether anything of it has arrived, even if empty."""
        return self.name is not None or self.text is not None or bool(self.extra)


class CallState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A tool call. `order` is its position among the calls: its first index, if it has one.

    It holds each of the `indices` by which a fragment reached it.
    `judged` says that its arguments were checked, and reported if they were not JSON.
    """

    order: int
    id: str | None = None
    type: str | None = None
    function: ToolState | None = None
    custom: ToolState | None = None
    extra: JsonObject | None = None
    indices: dict[int, bool] = field(default_factory=dict)
    judged: bool = False

    @property
    def named(self) -> ToolState:
        # If a call has both, the one with arguments says more.
        function, custom = self.function, self.custom
        if custom is not None and (function is None or (custom.text and not function.text)):
            return custom
        return function or ToolState()

    @property
    def name(self) -> Text | None:
        """The name of the function, else of the custom tool; None if there is none yet."""
        function, custom = self.function, self.custom
        if function is not None and function.name:
            return function.name
        return custom.name if custom is not None and custom.name else None

    def tools(self) -> list[tuple[Tool, ToolState]]:
        """Return the tools of this call; an empty one beside another is left out."""
        named: list[tuple[Tool, ToolState]] = []
        if self.function is not None:
            named.append(("function", self.function))
        if self.custom is not None:
            named.append(("custom", self.custom))
        return [each for each in named if each[1].came] or named


class CallsState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """The calls of a choice in order of arrival. The dicts give the place of the newest call that
    has an id, that holds an index, or that does both. `last` is the place of the call that the last
    fragment went to.
    """

    items: list[CallState] = field(default_factory=list)
    by_id: dict[str, int] = field(default_factory=dict)
    by_index: dict[int, int] = field(default_factory=dict)
    by_both: dict[str, int] = field(default_factory=dict)  # keys: the index, a blank and the id
    last: int = -1

    def in_order(self) -> list[CallState]:
        """Return the calls by their first index."""
        return sorted(self.items, key=_order_of)

    def hold(self, place: int, index: int) -> None:
        """Note that a fragment reached a call by an index."""
        call = self.items[place]
        if index in call.indices:
            return
        if not call.indices:
            call.order = index
        call.indices[index] = True
        if self.by_index.get(index, -1) < place:
            self.by_index[index] = place
        if call.id:
            self.by_both[f"{index} {call.id}"] = place

    def identify(self, place: int, id_: str) -> None:
        """Note the id of a call."""
        call = self.items[place]
        call.id = id_
        if id_:
            self.by_id[id_] = place
            for index in call.indices:
                self.by_both[f"{index} {id_}"] = place


class AudioState(Struct, omit_defaults=True, repr_omit_defaults=True):
    id: str | None = None
    transcript: Text | None = None
    data: bytearray | None = None
    expires_at: int | None = None
    extra: JsonObject | None = None


class TokensState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """Token logprobs in the runs in which they came."""

    runs: list[list[wire.TokenLogprob]] = field(default_factory=list)
    count: int = 0

    def add(self, run: list[wire.TokenLogprob]) -> None:
        self.runs.append(run)
        self.count += len(run)


class LogprobsState(Struct, omit_defaults=True, repr_omit_defaults=True):
    content: TokensState | None = None
    refusal: TokensState | None = None
    extra: JsonObject | None = None


class ChoiceState(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A choice; `extra` holds what the choice has no field for, `delta_extra` what the message
    has none for.

    `text` is a legacy completion's. `error` is the choice's own, or else True if its finish reason
    says that it failed. `brought` has the fields that deltas filled, once a message closed it.
    `tags` is what `think_tags` has read but not released.
    """

    role: str | None = None
    content: Text | None = None
    parts: list[object] | None = None
    refusal: Text | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    calls: CallsState | None = None
    function_call: ToolState | None = None
    audio: AudioState | None = None
    annotations: list[object] | None = None
    delta_extra: JsonObject | None = None
    finish_reason: str | None = None
    logprobs: LogprobsState | None = None
    text: Text | None = None
    error: object = None
    brought: dict[str, bool] | None = None
    tags: str | None = None
    extra: JsonObject | None = None


class State(Struct, omit_defaults=True, repr_omit_defaults=True):
    """A stream: the completion's own fields, its choices by index, and how it ended.

    `says_text` says whether a chunk called itself a `text_completion`. `due` has the choices that
    have finished but whose calls are not judged yet, each with whether anything arrived since.
    """

    id: str | None = None
    last_id: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: wire.Usage | None = None
    moderation: JsonObject | None = None
    extra: JsonObject | None = None
    choices: dict[int, ChoiceState] = field(default_factory=dict)
    says_text: bool = False
    due: dict[int, bool] | None = None
    done: bool = False
    closed: bool = False
    failed: bool = False
    server_error: object = None  # instead of the rest of the stream

    @property
    def error(self) -> object:
        """The server's error: the stream's, else that of the first choice that has one to show."""
        if self.failed:
            return self.server_error
        errors = [c.error for _, c in sorted(self.choices.items()) if c.error is not None]
        return next((error for error in errors if error is not True), True if errors else None)

    @property
    def is_text(self) -> bool:
        """Whether this is a legacy text completion; TGI also labels its chat chunks as one."""
        return self.says_text and any(c.text is not None for c in self.choices.values())

    @property
    def is_finished(self) -> bool:
        """Whether there are choices, and each has its finish reason."""
        for choice in self.choices.values():
            if not choice.finish_reason:
                return False
        return bool(self.choices)

    @property
    def has_usage(self) -> bool:
        """Whether there is a usage, or what stands in for one (Groq)."""
        groq = None if self.extra is None else self.extra.get("x_groq")
        return self.usage is not None or (
            isinstance(groq, dict) and isinstance(groq.get("usage"), dict)
        )

    @property
    def status(self) -> Status:
        is_finished = bool(self.choices)
        has_failed = self.failed
        for choice in self.choices.values():
            is_finished = is_finished and bool(choice.finish_reason)
            has_failed = has_failed or choice.error is not None
        if has_failed:
            return "failed"
        if is_finished or (self.done and (self.choices or self.has_usage)):
            return "complete"
        return "truncated" if self.closed or self.done else "open"
