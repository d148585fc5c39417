"""Every transition of a stream's state (SPEC sections 3 to 6).

Laws:

- `apply` applies a chunk completely or, if that would pass a limit, not at all.
- A stream is read until `[DONE]`, an error instead of the rest, or `close`. `end`, `fail` and
  `close` stop the reading, and the state says for good which of them it was.
- What a server does wrong is reported, and the stream goes on. Only a limit raises.
- Applying a chunk costs time for what it brings, not for what came before it.
- A chunk is merged field by field: the fields of a Struct by methods of this class and its bases,
  all others by `Rules`. `json_merge` has the base of all; `call_merger`, `typed_fields` and `usage`
  each merge some fields, `ending` ends what has been merged, and `chat` decodes for this class.
- A choice's finish reason does not end it: what comes later is applied, and reported. Its calls are
  judged once a chunk adds nothing to it (`due`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.lenient import ChunkReading
from .._decode.objects import head_of
from .._decode.text import COMPACT_AT, Text
from ..errors import LimitExceededError
from .closing_message import leave_out_repeated, note_brought
from .ending import Ending, brings_text, calls_of, index_of
from .problem_log import brief
from .rehearsal import RefusingLog, Rehearsal, Target, rest_of, texts_of
from .state import ChoiceState, State
from .typed_fields import TypedFieldMerger
from .usage import UsageMerger

_GOES_ON = (None, None)  # no usage, and no finish reason so far


class Reducer(Ending, TypedFieldMerger, UsageMerger):
    """Applies chunks to a `State`, and logs what is odd about them."""

    # What nearly every chunk repeats, as the last one had it: applying it again does nothing.
    _head: tuple[str | int | None, ...] | None = None
    # The same for `apply_common`, with `_GOES_ON`.
    _usual: tuple[object, ...] = ()
    _is_begun: bool = False  # whether a value was read, even one that is not a chunk
    _has_closing: bool = False  # whether a message closed a choice, so that deltas are noted

    @property
    def halves(self) -> int:
        """How many texts end in half a surrogate pair, including texts replaced since."""
        return len(self._halved)

    def resume(
        self, state: State, *, is_reading: bool, is_begun: bool, halves: Iterable[Text]
    ) -> None:
        """Go on from a restored state; `halves` are its texts that end in half a pair."""
        self.state, self.is_reading, self._is_begun = state, is_reading, is_begun
        self._halved = {id(text): text for text in halves}
        self._checks_halves = bool(self._halved)
        for choice in state.choices.values():
            if choice.calls is not None:
                self._count_calls(choice.calls)
            self._has_closing = self._has_closing or choice.brought is not None

    # --- a chunk ---

    def apply_common(self, chunk: wire.Chunk) -> ChoiceState | None:
        """Apply a common chunk: text, calls and logprobs, and nothing else.

        Return the choice that it went to, or None if `apply` applied it. Raises LimitExceededError,
        with the state as it was.
        """
        try:
            [choice] = chunk.choices  # type: ignore[misc]  # None, none or several
            into = self.state.choices[choice.index]  # type: ignore[index]  # None is not a key
            delta: Any = choice.delta
            content, calls = delta.content, delta.tool_calls
        except (AttributeError, LookupError, TypeError, ValueError):
            self.apply(chunk)
            return None
        # Not in a function of its own, nor a loop: CPython is fast where a line only ever reads
        # Structs of one class.
        usual = (
            chunk.id,
            chunk.created,
            chunk.model,
            chunk.service_tier,
            chunk.system_fingerprint,
            chunk.object,
            chunk.usage,
            into.finish_reason,
        )
        if usual != self._usual:
            apply = self.apply if chunk.usage is None else self.apply_known
            apply(chunk)
            return None
        if calls:
            if not self._may_apply_at_once(calls):
                self.apply_known(chunk)
                return None
            self._apply_calls(into, calls, 0)
        if content is not None:
            text = into.content
            if text is None:
                self._apply_content(into, delta)
            else:
                fragments = text.fragments  # `Text.append`, without the call
                fragments.append(content)
                if len(fragments) >= COMPACT_AT:
                    text.compact()
        if (
            delta.reasoning_content is not None
            or delta.reasoning is not None
            or delta.reasoning_details is not None
        ):
            self._apply_reasoning(into, delta)
        if not into.role:
            into.role = delta.role
        if choice.logprobs is not None:
            self._apply_logprobs(into, choice.logprobs)
        if choice.finish_reason:
            index: Any = choice.index
            self._finish(into, choice.finish_reason, index)
        return into

    def _may_apply_at_once(self, calls: Sequence[wire.ToolCallFragment]) -> bool:
        """Return whether calls are certainly within the limit, and there is no listener."""
        return len(calls) <= self._calls_left and self.listener is None

    def apply_known(self, chunk: wire.Chunk) -> None:
        """Apply a chunk as `apply` does, but faster if it has one choice, and that is known.

        Raises LimitExceededError, with the state as it was.
        """
        choices = chunk.choices
        head = (
            chunk.id,
            chunk.created,
            chunk.model,
            chunk.service_tier,
            chunk.system_fingerprint,
            chunk.object,
        )
        if head != self._head or not choices or len(choices) != 1 or self._has_closing:
            self.apply(chunk)
            return
        [choice] = choices
        index: Any = choice.index
        into, delta = self.state.choices.get(index), choice.delta
        if (
            into is None
            or into.finish_reason
            or delta is None
            or chunk.misfits
            or self.listener is not None
            or (delta.tool_calls and len(delta.tool_calls) > self._calls_left)
        ):
            self.apply(chunk)
            return
        if chunk.extra is not None or chunk.usage is not None or chunk.moderation is not None:
            self._apply_beside_choices(chunk)
        self._apply_delta(into, delta, 0)
        self._apply_beside_delta(into, choice, index)

    def apply(self, chunk: wire.Chunk) -> None:
        """Apply a chunk. Raises LimitExceededError, with the state as it was."""
        state, choices = self.state, chunk.choices or ()
        self.check_limits(choices)
        for misfit in chunk.misfits or ():
            self._log.report("invalid_field", misfit.message, misfit.path, misfit.value)
        if state.due:
            self._judge_due(state.due, choices)
        head = head_of(chunk)
        if head != self._head:
            self._apply_head(chunk)
            if chunk.choices is not None or any(v is not None for v in (*head, *rest_of(chunk))):
                self._head, self._usual = head, head + _GOES_ON
        if chunk.extra is not None or chunk.usage is not None or chunk.moderation is not None:
            self._apply_beside_choices(chunk)
        for position, choice in enumerate(choices):
            self._apply_choice(choice, position)
        if self.listener is not None:
            self.listener.on_chunk(chunk)

    def prepare(self, reading: ChunkReading) -> None:
        """Prepare a chunk read field by field. Raises LimitExceededError if it passes a limit."""
        self._has_closing |= leave_out_repeated(self.state.choices, reading)
        self.check_limits(reading.chunk.choices or ())

    def apply_reading(self, reading: ChunkReading) -> None:
        """Apply a chunk that was prepared, and the error in it."""
        self._checks_halves = reading.has_halves or bool(self._halved)
        self._is_failing = reading.error is not None
        self.apply(reading.chunk)
        self._is_failing = False
        self._checks_halves = bool(self._halved)
        if reading.error is not None:
            self.fail(reading.error)
        self._report_lone(reading.lone)

    def check_limits(self, choices: Sequence[wire.Choice]) -> None:
        """Raise LimitExceededError if these choices would pass the limit of choices or calls."""
        known, most = self.state.choices, self.limits.choices
        if most is not None and len(known) + len(choices) > most:
            indices = {index_of(choice, position) for position, choice in enumerate(choices)}
            if len(known) + len(indices - known.keys()) > most:
                raise LimitExceededError("choices", most)
        for choice in choices:
            # Few chunks open a call. A chunk may have the same choice again and again.
            delta = choice.delta
            calls = None if delta is None else delta.tool_calls
            if calls and len(calls) * len(choices) > self._calls_left:
                self._check_all_calls(choices)
                return

    def _check_all_calls(self, choices: Sequence[wire.Choice]) -> None:
        brought: dict[int, list[Sequence[wire.ToolCallFragment]]] = {}
        for position, choice in enumerate(choices):
            brought.setdefault(index_of(choice, position), []).append(calls_of(choice))
        for index, lists in brought.items():
            state = self.state.choices.get(index)
            self._check_calls(None if state is None else state.calls, lists)

    def _apply_head(self, chunk: wire.Chunk) -> None:
        state, id_ = self.state, chunk.id
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
        if chunk.object == "text_completion":
            state.says_text = True

    def _apply_beside_choices(self, chunk: wire.Chunk) -> None:
        """Apply what a chunk brings besides its choices."""
        state = self.state
        if chunk.usage is not None:
            state.usage = self._merged_usage(state.usage, chunk.usage)
        if chunk.moderation is not None:
            state.moderation = cast("JsonObject", self._healed(dict(chunk.moderation)))
        state.extra = self._merge_extra("chunk", state.extra, chunk.extra)

    # --- a choice ---

    def _apply_choice(self, choice: wire.Choice, position: int) -> None:
        index, delta, known = index_of(choice, position), choice.delta, self.state.choices
        state = known.get(index)
        if state is None:
            state = known[index] = ChoiceState()
        if self.listener is not None:
            self.listener.begin(index, state)
        if state.finish_reason:
            self._check_finished(choice, index, position)
        if delta is not None:
            if self._has_closing:
                note_brought(state, choice)
            self._apply_delta(state, delta, position)
        self._apply_beside_delta(state, choice, index)
        if self.listener is not None:
            self.listener.on_choice(choice)

    def _apply_delta(self, state: ChoiceState, delta: wire.Delta, position: int) -> None:
        if delta.content is not None:
            if state.content is None:
                self._apply_content(state, delta)
            else:
                self._append(state.content, delta.content)
        if delta.role is not None and not state.role:
            state.role = delta.role
        if (
            delta.reasoning_content is not None
            or delta.reasoning is not None
            or delta.reasoning_details is not None
        ):
            self._apply_reasoning(state, delta)
        if delta.tool_calls:
            self._apply_calls(state, delta.tool_calls, position)
        if (
            delta.extra is not None
            or delta.refusal is not None
            or delta.function_call is not None
            or delta.audio is not None
            or delta.annotations is not None
            or delta.parts is not None
        ):
            self._apply_rare(state, delta, position)

    def _apply_rare(self, state: ChoiceState, delta: wire.Delta, position: int) -> None:
        """Apply the fields of a delta that few streams have."""
        state.delta_extra = self._merge_extra("delta", state.delta_extra, delta.extra)
        if delta.parts is not None:
            self._apply_parts(state, delta.parts)
        if delta.refusal is not None:
            state.refusal = self._join(state.refusal, delta.refusal)
        if delta.function_call is not None:
            self._apply_function_call(state, delta.function_call, position)
        if delta.audio is not None:
            self._apply_audio(state, delta.audio)
        if delta.annotations is not None:
            self._apply_annotations(state, delta.annotations)
        if self.listener is not None:
            self.listener.progress.on_rare(delta)

    def _apply_beside_delta(self, state: ChoiceState, choice: wire.Choice, index: int) -> None:
        """Apply what a choice brings besides its delta."""
        if choice.logprobs is not None:
            self._apply_logprobs(state, choice.logprobs)
        if choice.usage is not None:
            self.state.usage = self._merged_usage(self.state.usage, choice.usage)
        if choice.text is not None:
            self._apply_legacy_text(state, choice, choice.text)
        if choice.extra is not None:
            state.extra = self._merge_extra("choice", state.extra, choice.extra)
            error = choice.extra.get("error")
            if error:
                self._fail_choice(state, error, index)
        if choice.finish_reason:
            self._finish(state, choice.finish_reason, index)

    def _apply_legacy_text(self, state: ChoiceState, choice: wire.Choice, text: str) -> None:
        """Apply the text of a legacy completion; beside a delta it only repeats that."""
        if brings_text(choice):
            state.text = self._join(state.text, text)
        else:
            state.extra = self._merge_extra("choice", state.extra, {"text": text})

    # --- for the fast path ---

    def rehearse_texts(self, chunk: wire.Chunk) -> list[tuple[Text, str]]:
        """Return each text that a chunk would append to, and what it would append.

        Raises ValueError if it brings anything but fragments of texts of the API.
        """
        if self._halved or not self.is_reading or self._has_closing or self.rules.is_cumulative:
            raise ValueError("the next chunk does more than append")
        head = self._head
        if head is not None and self.state.created:
            head = (head[0], chunk.created, *head[2:])  # only the first time is kept
        return [pair for pair in texts_of(self.state, chunk, head) if pair[1]]

    def rehearse_chunk(self, chunk: wire.Chunk) -> Sequence[tuple[Target, object]]:
        """Return each target that a chunk would change, and the string or integer that it brings.

        Raises if it would do anything else, such as report a problem, or if this cannot be known.
        """
        if self._halved or not self.is_reading:
            raise ValueError("the next chunk does more than append")
        rehearsal = Rehearsal(self.state)
        state, log, left = self.state, self._log, self._calls_left
        head, usual = self._head, self._usual
        self.state, self._log = rehearsal.state, RefusingLog()
        try:
            for _ in range(2):  # a name is appended at first, but a repetition of it is not
                self.apply(chunk)
        finally:
            self.state, self._log, self._calls_left = state, log, left
            self._head, self._usual = head, usual
        return rehearsal.changes()
