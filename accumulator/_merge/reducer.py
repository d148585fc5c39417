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

from collections.abc import Iterable
from typing import cast

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import COMPACT_AT, Text, healed
from ..errors import LimitExceededError
from ..limits import Limits
from ..rules import Rules
from .json_merge import FieldMerger, Report
from .state import AudioState, ChoiceState, LogprobsState, State, TokensState
from .tool_calls import CallsState, CallState, FunctionState, brief, count_new, find_call

__all__ = ["Reducer"]

Counts = wire.Usage | wire.PromptTokensDetails | wire.CompletionTokensDetails
_PROMPT_COUNTS = wire.PromptTokensDetails.__struct_fields__[:-1]
_COMPLETION_COUNTS = wire.CompletionTokensDetails.__struct_fields__[:-1]


class Reducer(FieldMerger):
    """Applies chunks to a `State`; what is odd about them goes to `report`."""

    __slots__ = ("_limits", "reading", "state")

    def __init__(self, rules: Rules, limits: Limits, report: Report) -> None:
        super().__init__(rules.levels, report)
        self.state = State()
        self._limits = limits
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

    def end(self) -> None:
        """`[DONE]` was read."""
        self.state.done = True
        self.reading = False
        self._end_halves()

    def fail(self, error: object) -> None:
        """The server sent an error in place of the rest."""
        error, lone = healed(error)
        self._report_lone(lone)
        self.state.failed = True
        self.reading = False
        self.state.error = error
        self._report("server_error", f"the server sent an error: {brief(error)}", None, error)
        self._end_halves()

    def close(self) -> None:
        """No more input will come."""
        self.state.closed = True
        self.reading = False
        self._end_halves()

    def apply(self, chunk: wire.Chunk, *, has_halves: bool = False) -> None:
        """Merge a chunk. Raises LimitExceededError, with the state as it was."""
        state = self.state
        known = state.choices
        choices = chunk.choices or ()
        for choice in choices:
            # Most chunks open neither a choice nor a call.
            delta = choice.delta
            if choice.index not in known or (delta is not None and delta.tool_calls):
                self.check(chunk)
                break
        if has_halves or self._careful:
            self._careful = has_halves or bool(self._halved)
        if chunk.id is not None and chunk.id != state.last_id:
            self._apply_id(chunk.id)
        if not state.model and chunk.model is not None:
            state.model = chunk.model
        if not state.created and chunk.created is not None:
            state.created = chunk.created
        # Nearly all chunks of a stream bring the same two, and to compare costs less than to set.
        tier, fingerprint = chunk.service_tier, chunk.system_fingerprint
        if tier is not None and tier != state.service_tier:
            state.service_tier = tier
        if fingerprint is not None and fingerprint != state.system_fingerprint:
            state.system_fingerprint = fingerprint
        if chunk.usage is not None:
            self._apply_usage(chunk.usage)
        if chunk.moderation is not None:
            state.moderation = cast("JsonObject", self._own(dict(chunk.moderation)))
        if chunk.extra is not None:
            state.extra = self._merge_extra("chunk", state.extra, chunk.extra)
        position = -1  # counted by hand: most chunks have one choice, and `enumerate` costs more
        for choice in choices:
            position += 1
            index = choice.index
            if index is None:
                index = position
            into = known.get(index)
            if into is None:
                into = known[index] = ChoiceState()
            if choice.delta is not None:
                self._apply_delta(into, choice.delta, index, position)
            if choice.logprobs is not None:
                self._apply_logprobs(into, choice.logprobs, index)
            if choice.usage is not None:
                self._apply_usage(choice.usage)
            if choice.extra is not None:
                into.extra = self._merge_extra("choice", into.extra, choice.extra)
            if choice.finish_reason:
                self._apply_finish(into, choice.finish_reason, index)

    def open_text(
        self, field: str, choice: int, call: int | None, inside: JsonObject | None = None
    ) -> Text | None:
        """Give the text that a fragment is appended to, if that is all that a chunk with it does.

        `field` is a text of the delta, "arguments" of the call with an index, "parts", or a
        vendor's list; for these two `inside` is the part or entry that brought a fragment last.
        None if the chunk may do more: open a choice, a call, a part or an entry, go on after its
        finish reason, complete a character.
        """
        state = self.state.choices.get(choice)
        if state is None or state.finish_reason or self._halved:
            return None
        if field == "content" and state.parts is not None:
            field, inside = "parts", {"type": "text", "text": ""}
        if field == "parts":
            return None if state.parts is None else self._open_part(state.parts, inside)
        if inside is not None:
            return self._open_entry(state.delta_extra, field, inside)
        if field != "arguments":
            return cast("Text | None", getattr(state, field))
        calls = state.calls
        place = None if calls is None or call is None else calls.by_index.get(call)
        if calls is None or place is None:
            return None
        held = calls.items[place]
        return (
            None if held.function is None or held.function.scan is not None else held.function.text
        )

    def open_tokens(self, choice: int) -> TokensState | None:
        """Give the state that a choice's next content logprobs are added to, if there is one."""
        state = self.state.choices.get(choice)
        return None if state is None or state.logprobs is None else state.logprobs.content

    def set_last_call(self, choice: int, call: int) -> None:
        """Remember the call that the last fragment of a choice went to."""
        calls = cast("CallsState", self.state.choices[choice].calls)
        calls.last = calls.by_index[call]

    def apply_usage(self, usage: wire.Usage) -> None:
        """Keep the larger of two counts, as for a chunk that brings a usage."""
        self._apply_usage(usage)

    def merge_into_chunk(self, name: str, values: Iterable[object]) -> None:
        """Merge a field that the API does not name, as chunks that bring these values in turn."""
        for value in values:
            self.state.extra = self._merge_extra("chunk", self.state.extra, {name: value})

    def check(self, chunk: wire.Chunk) -> None:
        """Raise LimitExceededError if the chunk would open more choices or calls than allowed."""
        choices = chunk.choices or ()
        known = self.state.choices
        limit = self._limits.choices
        if limit is not None and len(known) + len(choices) > limit:
            indices = {_index(choice, position) for position, choice in enumerate(choices)}
            if len(known.keys() | indices) > limit:
                raise LimitExceededError("choices", limit)
        limit = self._limits.tool_calls
        if limit is None:
            return
        if len(choices) == 1:
            delta, state = choices[0].delta, known.get(_index(choices[0], 0))
            brings = 0 if delta is None or not delta.tool_calls else len(delta.tool_calls)
            has = 0 if state is None or state.calls is None else len(state.calls.items)
            if brings + has <= limit:
                return
        fragments: dict[int, list[wire.ToolCallFragment]] = {}  # a chunk may name a choice twice
        for position, choice in enumerate(choices):
            if choice.delta is not None and choice.delta.tool_calls:
                fragments.setdefault(_index(choice, position), []).extend(choice.delta.tool_calls)
        for index, brought in fragments.items():
            state = known.get(index)
            calls = (state and state.calls) or CallsState()
            room = limit - len(calls.items)
            if len(brought) > room and count_new(calls, brought) > room:
                raise LimitExceededError("tool_calls", limit)

    def _apply_id(self, id_: str) -> None:
        state = self.state
        state.id = state.id or id_
        if id_ and state.last_id:
            self._report("id_changed", f"the stream's id changed to {brief(id_)}", "$.id", id_)
        state.last_id = id_ or state.last_id

    def _apply_usage(self, usage: wire.Usage) -> None:
        """Keep the larger of two counts, field by field, whether a server sends totals or what was
        so far.
        """
        into = self.state.usage
        if into is None:
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
        if state.finish_reason and _brings_content(delta):
            self._report(
                "content_after_finish",
                f"choice {index} goes on after its finish reason",
                f"$.choices[{position}].delta",
                None,
            )
        content = delta.content
        if content is not None:
            if state.content is None or self._careful:
                self._apply_content(state, content)
            else:
                # `Text.append`, without the call: nearly every chunk of every stream comes by here.
                fragments = state.content.fragments
                fragments.append(content)
                if len(fragments) >= COMPACT_AT:
                    state.content.compact()
        if delta.role is not None and not state.role:
            state.role = delta.role
        if delta.parts is not None:
            self._apply_parts(state, delta.parts)
        if delta.refusal is not None:
            state.refusal = self._join(state.refusal, delta.refusal)
        if delta.reasoning is not None:
            state.reasoning = self._join(state.reasoning, delta.reasoning)
        if delta.reasoning_content is not None:
            state.reasoning_content = self._join(state.reasoning_content, delta.reasoning_content)
        if delta.tool_calls:
            if state.calls is None:
                state.calls = CallsState()
            for entry, fragment in enumerate(delta.tool_calls):
                self._apply_fragment(state.calls, fragment, position, entry)
        if delta.function_call is not None:
            call = state.function_call = state.function_call or FunctionState()
            if delta.function_call.name is not None:
                call.name = self._join(call.name, delta.function_call.name)
            if delta.function_call.arguments is not None:
                call.text = self._join(call.text, delta.function_call.arguments)
            call.extra = self._merge_extra("delta.<object>", call.extra, delta.function_call.extra)
        if delta.audio is not None:
            self._apply_audio(state, delta.audio)
        if delta.annotations is not None:
            state.annotations = state.annotations or []
            state.annotations += cast("list[object]", self._own(list(delta.annotations)))
        if delta.extra is not None:
            state.delta_extra = self._merge_extra("delta", state.delta_extra, delta.extra)

    def _apply_content(self, state: ChoiceState, content: str) -> None:
        if state.parts is None:
            state.content = self._join(state.content, content)
        else:
            self._add_part(state.parts, content)

    # --- tool calls (SPEC section 4) ---

    def _apply_fragment(
        self, calls: CallsState, fragment: wire.ToolCallFragment, position: int, entry: int
    ) -> None:
        place, ambiguous = find_call(calls, fragment)
        if ambiguous:
            path = f"$.choices[{position}].delta.tool_calls[{entry}]"
            self._report("ambiguous_tool_call", ambiguous, path, fragment.id)
        if place is None:
            place = len(calls.items)
            index = fragment.index
            calls.items.append(CallState(order=place if index is None else index))
            if index is not None:
                calls.by_index[index] = place
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

    def _apply_logprobs(self, state: ChoiceState, logprobs: wire.Logprobs, index: int) -> None:
        into = state.logprobs = state.logprobs or LogprobsState()
        if logprobs.content is not None:
            into.content = into.content or TokensState()
            into.content.add(logprobs.content)
        if logprobs.refusal is not None:
            into.refusal = into.refusal or TokensState()
            into.refusal.add(logprobs.refusal)
        into.extra = self._merge_extra("choice.logprobs", into.extra, logprobs.extra)

    def _apply_finish(self, state: ChoiceState, reason: str, index: int) -> None:
        state.finish_reason = reason


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
