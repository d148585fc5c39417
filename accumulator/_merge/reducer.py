"""Every transition of a stream's state (SPEC sections 3 to 6).

Laws:

- `apply` takes a chunk wholly or, where a limit is passed, not at all.
- Nothing costs more because more has arrived: strings stay fragments, lists are appended to, and
  what identifies a choice, a call or a list's entry is a key of a dict.
- State is keyed by index. A server may name any integer, in any order: a key costs one entry.
- What no field is named for is merged by `Rules`, in `extra` of its level, and goes back to that
  place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import cast

from msgspec import UNSET

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import COMPACT_AT, Text, healed
from ..errors import LimitExceededError
from ..limits import Limits
from ..rules import Rules
from .json_merge import FieldMerger, IndexedList, Listener
from .problem_log import ProblemLog
from .rehearsal import RefusingLog, Rehearsal
from .state import AudioState, ChoiceState, LogprobsState, State, TokensState
from .tool_calls import CallsState, CallState, FunctionState, brief, count_new, find_call

__all__ = ["Reducer"]

Counts = wire.Usage | wire.PromptTokensDetails | wire.CompletionTokensDetails
# The fields of a chunk that are not in a choice and come with nearly every chunk, the same.
Head = tuple[str | None, int | None, str | None, str | None, str | None]
_PROMPT_FIELDS = wire.PromptTokensDetails.__struct_fields__
_OUTPUT_FIELDS = wire.CompletionTokensDetails.__struct_fields__
_PROMPT_COUNTS = wire.PromptTokensDetails.__struct_fields__[:-1]
_COMPLETION_COUNTS = wire.CompletionTokensDetails.__struct_fields__[:-1]


class Reducer(FieldMerger):
    """Applies chunks to a `State`; what is odd about them goes to `report`."""

    __slots__ = ("_calls_left", "_head", "_limits", "reading", "state")

    def __init__(self, rules: Rules, limits: Limits, log: ProblemLog) -> None:
        self._levels = rules.levels
        self._log = log
        self._halved: dict[int, Text] = {}
        self._careful = False
        self.listener: Listener | None = None
        self._limits = limits
        # So many fragments in one delta can certainly not open too many calls.
        self._calls_left = inf if limits.tool_calls is None else limits.tool_calls
        self._head: Head | None = None  # of the chunk applied last: to apply it again does nothing
        self.state = State()
        self.reading = True  # neither ended nor closed

    @property
    def halves(self) -> int:
        """How many texts end in half a surrogate pair, those included that were replaced since."""
        return len(self._halved)

    def resume(self, state: State, *, reading: bool, halves: Iterable[Text]) -> None:
        """Go on from a state that was kept elsewhere; `halves` are its texts that end in one."""
        self.state, self.reading = state, reading
        self._halved = {id(text): text for text in halves}
        self._careful = bool(self._halved)
        for choice in state.choices.values():
            if choice.calls is not None:
                self._count_calls(len(choice.calls.items))

    def end(self) -> None:
        """`[DONE]` was read."""
        self.state.done = True
        self.reading = False
        if self._halved:
            self._end_halves()

    def fail(self, error: object) -> None:
        """The server sent an error in place of the rest."""
        error, lone = healed(error)
        self._report_lone(lone)
        self.state.failed = True
        self.reading = False
        self.state.error = error
        self._log.report("server_error", f"the server sent an error: {brief(error)}", None, error)
        self._end_halves()

    def close(self) -> None:
        """No more input will come."""
        self.state.closed = True
        self.reading = False
        if self._halved:
            self._end_halves()

    def apply_text(self, chunk: wire.Chunk) -> None:
        """Apply a chunk that can bring text and nothing else, as nearly all chunks are.

        Raises LimitExceededError, with the state as it was.
        """
        choices = chunk.choices
        if choices and len(choices) == 1 and chunk.usage is None:
            [choice] = choices
            into = self.state.choices.get(choice.index)  # type: ignore[arg-type]  # None is no key
            delta = choice.delta
            if into is not None and delta is not None and not into.finish_reason:
                content, text = delta.content, into.content
                same = self._head == (
                    chunk.id,
                    chunk.created,
                    chunk.model,
                    chunk.service_tier,
                    chunk.system_fingerprint,
                )
                if same and (content is None or text is not None):
                    if content is not None and text is not None:
                        fragments = text.fragments  # `Text.append`, without the call
                        fragments.append(content)
                        if len(fragments) >= COMPACT_AT:
                            text.compact()
                    if delta.role is not None and not into.role:
                        into.role = delta.role
                    if choice.finish_reason:
                        into.finish_reason = choice.finish_reason
                    return
        self.apply(chunk)

    def apply_known(self, chunk: wire.Chunk) -> None:
        """Apply a chunk as `apply` does; most bring something to one choice that is known.

        Raises LimitExceededError, with the state as it was.
        """
        choices = chunk.choices
        if choices and len(choices) == 1 and chunk.usage is None and chunk.extra is None:
            [choice] = choices
            into = self.state.choices.get(choice.index)  # type: ignore[arg-type]  # None is no key
            delta = choice.delta
            same = self._head == (
                chunk.id,
                chunk.created,
                chunk.model,
                chunk.service_tier,
                chunk.system_fingerprint,
            )
            if into is not None and delta is not None and same and chunk.moderation is None:
                calls = delta.tool_calls
                if not calls or len(calls) <= self._calls_left:
                    self._apply_delta(into, delta, choice.index or 0, 0)
                    if choice.logprobs or choice.finish_reason or choice.extra or choice.usage:
                        self._apply_choice(into, choice)
                    return
        self.apply(chunk)

    def apply(self, chunk: wire.Chunk) -> None:
        """Apply a chunk. Raises LimitExceededError, with the state as it was."""
        known = self.state.choices
        choices = chunk.choices or ()
        for choice in choices:
            # Most chunks open neither a choice nor a call.
            delta = choice.delta
            if choice.index not in known or (
                delta is not None and delta.tool_calls and len(delta.tool_calls) > self._calls_left
            ):
                self.check_limits(choices)
                break
        head = (chunk.id, chunk.created, chunk.model, chunk.service_tier, chunk.system_fingerprint)
        if head != self._head:
            self._apply_head(chunk)
            self._head = head
        if chunk.usage is not None:
            self._apply_usage(chunk.usage)
        if chunk.extra is not None or chunk.moderation is not None:
            self._apply_rest(chunk)
        position = -1  # counted by hand: most chunks have one choice, and `enumerate` costs more
        for choice in choices:
            position += 1
            index = choice.index
            if index is None:
                index = position
            into = known.get(index) or self._open_choice(index)
            if choice.delta is not None:
                self._apply_delta(into, choice.delta, index, position)
            self._apply_choice(into, choice)
            if self.listener is not None:
                self.listener.on_choice(index, into, choice)
        if self.listener is not None:
            self.listener.on_chunk(chunk, self.state)

    def apply_halved(self, chunk: wire.Chunk, *, has_halves: bool) -> None:
        """Apply a chunk whose texts may hold halves of surrogate pairs."""
        self._careful = has_halves or bool(self._halved)
        self.apply(chunk)
        self._careful = bool(self._halved)

    def _open_choice(self, index: int) -> ChoiceState:
        state = self.state.choices[index] = ChoiceState()
        return state

    def _apply_head(self, chunk: wire.Chunk) -> None:
        state = self.state
        id_ = chunk.id
        if id_ is not None and id_ != state.last_id:
            if id_ and state.last_id:
                self._log.report(
                    "id_changed", f"the stream's id changed to {brief(id_)}", "$.id", id_
                )
            state.id = state.id or id_
            state.last_id = id_ or state.last_id
        if not state.model and chunk.model is not None:
            state.model = chunk.model
        if not state.created and chunk.created is not None:
            state.created = chunk.created
        if chunk.service_tier is not None:
            state.service_tier = chunk.service_tier
        if chunk.system_fingerprint is not None:
            state.system_fingerprint = chunk.system_fingerprint

    def _apply_rest(self, chunk: wire.Chunk) -> None:
        state = self.state
        if chunk.moderation is not None:
            state.moderation = cast("JsonObject", self._own(dict(chunk.moderation)))
        state.extra = self._merge_extra("chunk", state.extra, chunk.extra)

    def _apply_choice(self, state: ChoiceState, choice: wire.Choice) -> None:
        """Apply what a choice brings beside its delta."""
        if choice.logprobs is not None:
            self._apply_logprobs(state, choice.logprobs)
        if choice.usage is not None:
            self._apply_usage(choice.usage)
        if choice.extra is not None:
            state.extra = self._merge_extra("choice", state.extra, choice.extra)
        if choice.finish_reason:
            state.finish_reason = choice.finish_reason

    def rehearse_chunk(self, chunk: wire.Chunk) -> list[tuple[Text, str]]:
        """Return each text that applying a chunk would append to, and what it would append.

        Raises if that would do anything else, such as report a problem, or if it is not known.
        """
        if self._halved or not self.reading:
            raise ValueError("the next chunk does more than append")
        rehearsal = Rehearsal(self.state)
        before = rehearsal.describe()
        state, log, head, left = self.state, self._log, self._head, self._calls_left
        self.state, self._log = rehearsal.state, RefusingLog()
        try:
            for _ in range(2):  # a name is joined, but not when it comes again
                self.apply(chunk)
        finally:
            self.state, self._log, self._head, self._calls_left = state, log, head, left
        if rehearsal.describe() != before:
            raise ValueError("the chunk changes more than texts")
        grown = [(text, str(stand_in)) for text, stand_in in rehearsal.texts if stand_in]
        for _, twice in grown:
            if twice[: len(twice) // 2] * 2 != twice:
                raise ValueError("the chunk does not append the same each time")
        return [(text, twice[: len(twice) // 2]) for text, twice in grown]

    def check_limits(self, choices: Sequence[wire.Choice]) -> None:
        """Raise LimitExceededError if these would open more choices or calls than allowed."""
        known = self.state.choices
        limit = self._limits.choices
        if limit is not None and len(known) + len(choices) > limit:
            indices = {_index(choice, position) for position, choice in enumerate(choices)}
            if len(known.keys() | indices) > limit:
                raise LimitExceededError("choices", limit)
        if self._limits.tool_calls is not None:
            self._check_calls(choices, self._limits.tool_calls)

    def _check_calls(self, choices: Iterable[wire.Choice], limit: int) -> None:
        fragments: dict[int, list[wire.ToolCallFragment]] = {}  # a chunk may name a choice twice
        for position, choice in enumerate(choices):
            if choice.delta is not None and choice.delta.tool_calls:
                fragments.setdefault(_index(choice, position), []).extend(choice.delta.tool_calls)
        for index, brought in fragments.items():
            state = self.state.choices.get(index)
            calls = (state and state.calls) or CallsState()
            room = limit - len(calls.items)
            if len(brought) > room and count_new(calls, brought) > room:
                raise LimitExceededError("tool_calls", limit)

    def _apply_usage(self, usage: wire.Usage) -> None:
        """Keep the larger of two counts, field by field, whether a server sends totals or what was
        so far.
        """
        into = self.state.usage
        if into is None:
            if not self._careful:
                self.state.usage = _own_usage(usage)
                return
            into = self.state.usage = wire.Usage()
        count, known = usage.prompt_tokens, into.prompt_tokens
        if count is not None and (known is None or count > known):
            into.prompt_tokens = count
        count, known = usage.completion_tokens, into.completion_tokens
        if count is not None and (known is None or count > known):
            into.completion_tokens = count
        count, known = usage.total_tokens, into.total_tokens
        if count is not None and (known is None or count > known):
            into.total_tokens = count
        if usage.extra is not None:
            self._apply_counts((), into, usage)
        prompt = usage.prompt_tokens_details
        if prompt is not None and prompt != into.prompt_tokens_details:
            if into.prompt_tokens_details is None:
                into.prompt_tokens_details = wire.PromptTokensDetails()
            self._apply_counts(_PROMPT_COUNTS, into.prompt_tokens_details, prompt)
        completion = usage.completion_tokens_details
        if completion is not None and completion != into.completion_tokens_details:
            if into.completion_tokens_details is None:
                into.completion_tokens_details = wire.CompletionTokensDetails()
            self._apply_counts(_COMPLETION_COUNTS, into.completion_tokens_details, completion)

    def _apply_counts(self, names: tuple[str, ...], into: Counts, usage: Counts) -> None:
        for name in names:
            new = getattr(usage, name)
            if new is not None:
                old = getattr(into, name)
                if old is None or new > old:
                    setattr(into, name, new)
        if usage.extra is not None:
            into.extra = cast(
                "wire.Extra", self._larger_json(into.extra or wire.Extra(), usage.extra)
            )

    def _apply_delta(
        self, state: ChoiceState, delta: wire.Delta, index: int, position: int
    ) -> None:
        if state.finish_reason:
            self._check_finished(delta, index, position)
        if delta.content is not None:
            if state.content is None:
                self._apply_content(state, delta.content)
            elif delta.content:
                self._append(state.content, delta.content)
        if delta.role is not None and not state.role:
            state.role = delta.role
        if delta.tool_calls:
            self._apply_calls(state, delta.tool_calls, position)
        if delta.reasoning is not None or delta.reasoning_content is not None:
            self._apply_reasoning(state, delta)
        if delta.reasoning_details is not None:
            self._apply_details(state, delta.reasoning_details)
        if delta.extra is not None:
            state.delta_extra = self._merge_extra("delta", state.delta_extra, delta.extra)
        if (
            delta.refusal is not None
            or delta.function_call is not None
            or delta.audio is not None
            or delta.annotations is not None
            or delta.parts is not None
        ):
            self._apply_rare(state, delta)

    def _check_finished(self, delta: wire.Delta, index: int, position: int) -> None:
        if _brings_content(delta):
            self._log.report(
                "content_after_finish",
                f"choice {index} goes on after its finish reason",
                f"$.choices[{position}].delta",
                None,
            )

    def _apply_reasoning(self, state: ChoiceState, delta: wire.Delta) -> None:
        if delta.reasoning is not None:
            if state.reasoning is None:
                state.reasoning = Text()
            self._append(state.reasoning, delta.reasoning)
        if delta.reasoning_content is not None:
            if state.reasoning_content is None:
                state.reasoning_content = Text()
            self._append(state.reasoning_content, delta.reasoning_content)

    def _apply_rare(self, state: ChoiceState, delta: wire.Delta) -> None:
        """Apply the fields of a delta that few streams have."""
        if delta.parts is not None:
            self._apply_parts(state, delta.parts)
        if delta.refusal is not None:
            state.refusal = self._join(state.refusal, delta.refusal)
        if delta.function_call is not None:
            self._apply_function_call(state, delta.function_call)
        if delta.audio is not None:
            self._apply_audio(state, delta.audio)
        if delta.annotations is not None:
            state.annotations = state.annotations or []
            state.annotations += cast("list[object]", self._own(list(delta.annotations)))

    def _apply_function_call(self, state: ChoiceState, fragment: wire.FunctionFragment) -> None:
        call = state.function_call = state.function_call or FunctionState()
        if fragment.name is not None:
            call.name = self._join(call.name, fragment.name)
        if fragment.arguments is not None:
            call.text = self._join(call.text, fragment.arguments)
        call.extra = self._merge_extra("delta.<object>", call.extra, fragment.extra)

    def _apply_details(self, state: ChoiceState, details: Iterable[wire.ReasoningDetail]) -> None:
        """Merge details of reasoning by their index, as their rows of the merge table say."""
        extra = state.delta_extra = {} if state.delta_extra is None else state.delta_extra
        entries = extra.get("reasoning_details")
        if not isinstance(entries, IndexedList):
            entries = extra["reasoning_details"] = IndexedList()
        for detail in details:
            into = entries.places.get(detail.index) or entries.at(detail.index)
            if into.get("type") != detail.type:
                into["index"], into["type"] = detail.index, detail.type
            if detail.text is not UNSET:
                text = into.get("text")
                if type(text) is Text and detail.text is not None:
                    self._append(text, detail.text)
                else:
                    into["text"] = self._joined(text, detail.text)
            if detail.summary is not UNSET:
                into["summary"] = self._joined(into.get("summary"), detail.summary)
            if detail.format is not UNSET:
                into["format"] = _latest(into.get("format"), detail.format)
            if detail.id is not UNSET:
                into["id"] = _latest(into.get("id"), detail.id)
            if detail.data is not UNSET:
                into["data"] = _latest(into.get("data"), detail.data)
            if detail.signature is not UNSET:
                into["signature"] = _latest(into.get("signature"), detail.signature)

    def _joined(self, text: object, fragment: str | None) -> object:
        """Return what stands in a detail after its text's next fragment, a null included."""
        return text if fragment is None else self._join(_text_of(text), fragment)

    def _apply_content(self, state: ChoiceState, content: str) -> None:
        if state.parts is None:
            state.content = self._join(None, content)
        else:
            self._add_part(state.parts, content)

    # --- tool calls (SPEC section 4) ---

    def _apply_calls(
        self, state: ChoiceState, fragments: Iterable[wire.ToolCallFragment], position: int
    ) -> None:
        calls = state.calls
        if calls is None:
            calls = state.calls = CallsState()
        entry = -1
        for fragment in fragments:
            entry += 1
            # All but the first fragment of nearly every call bring an index and arguments.
            function = fragment.function
            place = calls.by_index.get(fragment.index)  # type: ignore[arg-type]  # None is no key
            if (
                place is None
                or function is None
                or fragment.id is not None
                or function.name is not None
                or fragment.type is not None
                or fragment.custom is not None
                or fragment.extra is not None
                or function.extra is not None
            ):
                self._apply_fragment(calls, fragment, position, entry)
                continue
            if self.listener is not None:
                self.listener.on_call(place)
            if calls.last != place:
                calls.last = place
            if function.arguments is not None:
                self._apply_arguments(calls.items[place], function.arguments)

    def _apply_arguments(self, call: CallState, fragment: str) -> None:
        function = call.function
        if function is None:
            function = call.function = FunctionState()
        text = function.text
        if text is None:
            text = function.text = Text()
        self._append(text, fragment)
        if function.scan is not None:
            function.scan.push(fragment)

    def _apply_fragment(
        self, calls: CallsState, fragment: wire.ToolCallFragment, position: int, entry: int
    ) -> None:
        place, ambiguous = find_call(calls, fragment)
        if ambiguous:
            path = f"$.choices[{position}].delta.tool_calls[{entry}]"
            self._log.report("ambiguous_tool_call", ambiguous, path, fragment.id)
        if place is None:
            place = len(calls.items)
            index = fragment.index
            calls.items.append(CallState(order=place if index is None else index))
            self._count_calls(place + 1)
            if index is not None:
                calls.by_index[index] = place
        if self.listener is not None:
            self.listener.on_call(place)
        calls.last = place
        call = calls.items[place]
        if fragment.id is not None and not call.id:
            call.id = fragment.id
            if fragment.id:
                calls.by_id[fragment.id] = place
        if fragment.type is not None and not call.type:
            call.type = fragment.type
        if fragment.function is not None:
            call.function = call.function or FunctionState()
            self._apply_function(call.function, fragment.function.name, fragment.function.arguments)
            if fragment.function.extra is not None:
                call.function.extra = self._merge_extra(
                    "delta", call.function.extra, fragment.function.extra
                )
        if fragment.custom is not None:
            call.custom = call.custom or FunctionState()
            self._apply_function(call.custom, fragment.custom.name, fragment.custom.input)
            call.custom.extra = self._merge_extra("delta", call.custom.extra, fragment.custom.extra)
        if fragment.extra is not None:
            call.extra = self._merge_extra("delta", call.extra, fragment.extra)

    def _count_calls(self, count: int) -> None:
        """Note that a choice has so many calls."""
        if self._limits.tool_calls is not None:
            self._calls_left = min(self._calls_left, self._limits.tool_calls - count)

    def _apply_function(self, state: FunctionState, name: str | None, text: str | None) -> None:
        # Some servers repeat the name with every fragment.
        if name is not None and not (name and state.name and state.name.equals(name)):
            state.name = self._join(state.name, name)
        if text is not None:
            state.text = self._join(state.text, text)
            if state.scan is not None:
                state.scan.push(text)

    # --- other typed fields ---

    def _apply_parts(self, state: ChoiceState, parts: Iterable[object]) -> None:
        if state.parts is None:
            state.parts = []
            if state.content:
                state.parts.append({"type": "text", "text": state.content})
            state.content = None
        for part in parts:
            self._add_part(state.parts, part)

    def _apply_audio(self, state: ChoiceState, fragment: wire.AudioFragment) -> None:
        audio = state.audio = state.audio or AudioState()
        if fragment.id is not None and not audio.id:
            audio.id = fragment.id
        if fragment.transcript is not None:
            audio.transcript = self._join(audio.transcript, fragment.transcript)
        if fragment.data is not None:
            if audio.data is None:
                audio.data = bytearray()
            audio.data += fragment.data
        if fragment.expires_at is not None:
            audio.expires_at = fragment.expires_at
        audio.extra = self._merge_extra("delta.<object>", audio.extra, fragment.extra)

    def _apply_logprobs(self, state: ChoiceState, logprobs: wire.Logprobs) -> None:
        into = state.logprobs = state.logprobs or LogprobsState()
        if logprobs.content is not None:
            into.content = into.content or TokensState()
            into.content.add(logprobs.content)
        if logprobs.refusal is not None:
            into.refusal = into.refusal or TokensState()
            into.refusal.add(logprobs.refusal)
        into.extra = self._merge_extra("choice.logprobs", into.extra, logprobs.extra)


def _index(choice: wire.Choice, position: int) -> int:
    return position if choice.index is None else choice.index


def _brings_content(delta: wire.Delta) -> bool:
    return bool(
        delta.content
        or delta.parts
        or delta.refusal
        or delta.reasoning
        or delta.reasoning_content
        or delta.tool_calls
        or delta.function_call is not None
        or delta.audio is not None
    )


def _text_of(value: object) -> Text | None:
    return value if type(value) is Text else None


def _latest(known: object, value: str | None) -> object:
    return known if value is None else value


def _own_usage(usage: wire.Usage) -> wire.Usage:
    """Take over the first usage of a stream, without what a vendor's Struct has beside."""
    output, prompt = usage.completion_tokens_details, usage.prompt_tokens_details
    if output is not None and type(output) is not wire.CompletionTokensDetails:
        output = wire.CompletionTokensDetails(*map(output.__getattribute__, _OUTPUT_FIELDS))
    if prompt is not None and type(prompt) is not wire.PromptTokensDetails:
        prompt = wire.PromptTokensDetails(*map(prompt.__getattribute__, _PROMPT_FIELDS))
    return wire.Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        output,
        prompt,
        usage.extra,
    )
