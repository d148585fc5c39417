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

import re
from collections.abc import Iterable, Sequence
from math import inf
from typing import cast

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.lenient import Reading
from .._decode.text import COMPACT_AT, Text, healed
from ..errors import LimitExceededError
from ..limits import Limits
from ..rules import ARGUMENTS, Rules
from .call_merger import CallMerger
from .json_merge import NO_HALVES, IndexedList, Listener, is_empty
from .problem_log import ProblemLog, brief
from .rehearsal import RefusingLog, Rehearsal
from .state import AudioState, ChoiceState, FunctionState, State
from .typed_fields import TypedFieldMerger
from .usage import UsageMerger

__all__ = ["Reducer"]

# The fields of a chunk that are not in a choice and come with nearly every chunk, the same.
Head = tuple[str | None, int | None, str | None, str | None, str | None]
_TEXTS = ("content", "refusal", "reasoning", "reasoning_content")


class Reducer(CallMerger, TypedFieldMerger, UsageMerger):
    """Applies chunks to a `State`; what is odd about them goes to `report`."""

    __slots__ = ("_has_brought", "_head", "_is_failing", "_limits", "reading", "state")

    def __init__(self, rules: Rules, limits: Limits, log: ProblemLog) -> None:
        self._levels = rules.levels
        self._log = log
        self._halved = NO_HALVES
        self._careful = False
        self.listener: Listener | None = None
        self._limits = limits
        self._most_calls = inf if limits.tool_calls is None else limits.tool_calls
        self._calls_left = self._most_calls
        self._is_cumulative = rules.rows[ARGUMENTS] == "last"
        self._has_brought = False  # whether a message closed a choice, so that deltas are noted
        self._is_failing = False  # whether the chunk at hand brings an error of its own
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
                self._count_calls(choice.calls)
            self._has_brought = self._has_brought or choice.brought is not None

    def end(self) -> None:
        """`[DONE]` was read."""
        state = self.state
        if self.reading and not state.is_finished and (state.choices or state.has_usage):
            self._log.report("no_finish_reason", "[DONE] came before every choice had ended")
        self._judge_all()
        state.done = True
        self.reading = False
        self._end_halves()

    def fail(self, error: object) -> None:
        """The server sent an error in place of the rest."""
        error, lone = healed(error)
        self._report_lone(lone)
        self.state.failed = True
        self.reading = False
        self.state.server_error = error
        self._log.report("server_error", f"the server sent an error: {brief(error)}", None, error)
        self._judge_all()
        self._end_halves()

    def close(self) -> None:
        """No more input will come."""
        self._judge_all()
        self.state.closed = True
        self.reading = False
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
                        self._finish(into, choice.finish_reason, choice.index or 0)
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
            # Not a text completion's, which is told by its chunks.
            same = same and chunk.object != "text_completion"
            if into is not None and delta is not None and same and chunk.moderation is None:
                calls = delta.tool_calls
                if not calls or len(calls) <= self._calls_left:
                    self._apply_delta(into, delta, choice.index or 0, 0)
                    if (
                        choice.logprobs
                        or choice.finish_reason
                        or choice.extra
                        or choice.usage
                        or choice.text is not None
                    ):
                        self._apply_choice(into, choice, choice.index or 0)
                    if self.listener is not None:
                        self.listener.on_choice(choice.index or 0, into, choice)
                    return
        self.apply(chunk)

    def apply(self, chunk: wire.Chunk) -> None:
        """Apply a chunk. Raises LimitExceededError, with the state as it was."""
        state = self.state
        known = state.choices
        choices = chunk.choices or ()
        for choice in choices:
            # Most chunks open neither a choice nor a call. One may name a choice again and again.
            delta = choice.delta
            if choice.index not in known or (
                delta is not None
                and delta.tool_calls
                and len(delta.tool_calls) * len(choices) > self._calls_left
            ):
                self.check_limits(choices)
                break
        head = (chunk.id, chunk.created, chunk.model, chunk.service_tier, chunk.system_fingerprint)
        if state.due:
            self._judge_due(choices)
        if head != self._head:
            self._apply_head(chunk)
            self._head = head
        if chunk.object == "text_completion":
            state.says_text = True
        if chunk.usage is not None:
            state.usage = self._merged_usage(state.usage, chunk.usage)
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
                if self._has_brought:
                    self._note_brought(into, choice)
                self._apply_delta(into, choice.delta, index, position)
            if choice.text and into.finish_reason and _brings_text(choice):
                self._check_text(choice, index, position)
            self._apply_choice(into, choice, index)
            if self.listener is not None:
                self.listener.on_choice(index, into, choice)
        if state.due:
            self._head = None  # so that the next chunk comes here, which judges their calls
        if self.listener is not None:
            self.listener.on_chunk(chunk, state)

    def apply_halved(self, chunk: wire.Chunk, *, has_halves: bool, error: object = None) -> None:
        """Apply a chunk whose texts may hold halves of surrogate pairs, and the error in it."""
        self._careful = has_halves or bool(self._halved)
        self._is_failing = error is not None
        self.apply(chunk)
        self._is_failing = False
        self._careful = bool(self._halved)
        if error is not None:
            self.fail(error)

    def leave_out_repeated(self, reading: Reading) -> None:
        """Leave out of a closing message what deltas brought: it says that again (MiniMax)."""
        choices = reading.chunk.choices or ()
        if all(choice.closing is None for choice in choices):
            return
        self._has_brought = True
        of_chunk: dict[int, dict[str, bool]] = {}
        for position, choice in enumerate(choices):
            index = _index(choice, position)
            into, brought = self.state.choices.get(index), of_chunk.setdefault(index, {})
            if choice.delta is None:
                continue
            if choice.closing is None:
                brought |= _named_by(choice.delta)
                continue
            if into is not None:
                into.brought = _brought_by(into) if into.brought is None else into.brought
                brought |= into.brought
            choice.delta = _without(choice.delta, brought)
            path = f"$.choices[{position}].delta."
            reading.misfits = [
                misfit
                for misfit in reading.misfits
                if not misfit.path.startswith(path)
                or re.split(r"[.\[]", misfit.path[len(path) :])[0] not in brought
            ]

    def _note_brought(self, into: ChoiceState, choice: wire.Choice) -> None:
        """Note what a delta brings to a choice that a message has closed."""
        if into.brought is None:
            # What came with the message itself, the first of its choice, does not count.
            into.brought = {} if choice.delta is None or choice.closing else _brought_by(into)
        if choice.closing is None and choice.delta is not None:
            into.brought |= _named_by(choice.delta)

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

    def _apply_choice(self, state: ChoiceState, choice: wire.Choice, index: int) -> None:
        """Apply what a choice brings beside its delta."""
        if choice.logprobs is not None:
            self._apply_logprobs(state, choice.logprobs)
        if choice.usage is not None:
            self.state.usage = self._merged_usage(self.state.usage, choice.usage)
        if choice.text is not None:
            self._apply_legacy_text(state, choice)
        if choice.extra is not None:
            state.extra = self._merge_extra("choice", state.extra, choice.extra)
            error = choice.extra.get("error")
            if error:
                self._fail_choice(state, error, index)
        if choice.finish_reason:
            self._finish(state, choice.finish_reason, index)

    def _apply_legacy_text(self, state: ChoiceState, choice: wire.Choice) -> None:
        """Apply the text of a legacy completion; beside a delta it says the same again."""
        text = cast("str", choice.text)
        if _brings_text(choice):
            state.text = self._join(state.text, text)
        else:
            state.extra = self._merge_extra("choice", state.extra, {"text": text})

    def _finish(self, state: ChoiceState, finish_reason: str, index: int) -> None:
        state.finish_reason = finish_reason
        if finish_reason == "error":  # OpenRouter
            self._fail_choice(state, True, index)
        if state.calls is not None:
            self._due()[index] = False
            self._head = None  # so that the next chunk goes the long way, to `_judge_due`

    def _fail_choice(self, state: ChoiceState, error: object, index: int) -> None:
        if state.error is None and not self._is_failing:
            message = f"choice {index} failed" + ("" if error is True else f": {brief(error)}")
            found = None if error is True else healed(error)[0]
            self._log.report("server_error", message, f"$.choices[{index}]", found)
        if state.error is None or state.error is True:
            state.error, _ = healed(error)

    # --- calls whose choice has finished (SPEC sections 4 and 9) ---

    def _judge_due(self, choices: Sequence[wire.Choice]) -> None:
        """Judge the calls of choices that a chunk adds nothing to."""
        due = self._due()
        released = set(due)
        for position, choice in enumerate(choices):
            index = _index(choice, position)
            if index in due:
                reason = choice.finish_reason
                brings = bool(_brings_text(choice) or (choice.delta and _brings(choice.delta)))
                another = reason and reason != self.state.choices[index].finish_reason
                if brings or another or (due[index] and reason):
                    released.discard(index)
                due[index] = not reason and (brings or due[index])
        for index in released:
            del due[index]
            self._judge_arguments(index, self.state.choices[index])

    def _judge_all(self) -> None:
        for index in sorted(self.state.due or ()):
            self._judge_arguments(index, self.state.choices[index])
        self.state.due = None

    def _due(self) -> dict[int, bool]:
        if self.state.due is None:
            self.state.due = {}
        return self.state.due

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
        fragments: dict[int, list[wire.ToolCallFragment]] = {}  # a chunk may name a choice twice
        for position, choice in enumerate(choices):
            if choice.delta is not None and choice.delta.tool_calls:
                fragments.setdefault(_index(choice, position), []).extend(choice.delta.tool_calls)
        for index, brought in fragments.items():
            state = known.get(index)
            self._check_calls(None if state is None else state.calls, brought)

    def _apply_delta(
        self, state: ChoiceState, delta: wire.Delta, index: int, position: int
    ) -> None:
        if state.finish_reason:
            self._check_finished(state, delta, index, position)
        if delta.content is not None:
            if state.content is None:
                self._apply_content(state, delta)
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
            self._apply_rare(state, delta, position)

    def _check_finished(
        self, state: ChoiceState, delta: wire.Delta, index: int, position: int
    ) -> None:
        if _brings(delta):
            self._report_late(index, position)
            if delta.tool_calls:
                self._due().setdefault(index, True)
                self._head = None

    def _check_text(self, choice: wire.Choice, index: int, position: int) -> None:
        if choice.delta is None or not _brings(choice.delta):  # once for a chunk
            self._report_late(index, position)

    def _report_late(self, index: int, position: int) -> None:
        self._log.report(
            "content_after_finish",
            f"choice {index} goes on after its finish reason",
            f"$.choices[{position}].delta",
            None,
        )

    def _apply_rare(self, state: ChoiceState, delta: wire.Delta, position: int) -> None:
        """Apply the fields of a delta that few streams have."""
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


def _index(choice: wire.Choice, position: int) -> int:
    return position if choice.index is None else choice.index


def _brings_text(choice: wire.Choice) -> bool:
    """Return whether the text of a choice is a legacy completion's: beside a delta it says the same
    again.
    """
    return choice.text is not None and (choice.delta is None or choice.closing is not None)


def _brings(delta: wire.Delta) -> bool:
    """Return whether a delta brings text, a call or audio."""
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


# --- what deltas brought, for the message that closes a choice ----------------------------


def _named_by(delta: wire.Delta) -> dict[str, bool]:
    """Return the names of the fields that a delta brings, those left out that say nothing."""
    empty = (wire.FunctionFragment(), wire.AudioFragment())
    fields = {n: getattr(delta, n) for n in delta.__struct_fields__ if n != "extra"}
    names = [n for n, value in fields.items() if not is_empty(value) and value not in empty]
    names += [name for name, value in (delta.extra or {}).items() if not is_empty(value)]
    return dict.fromkeys(["content" if name == "parts" else name for name in names], True)


def _brought_by(state: ChoiceState) -> dict[str, bool]:
    """Return the names of the fields that deltas have filled."""
    empty = (None, FunctionState(), AudioState())
    own = ("role", *_TEXTS, "function_call", "audio", "annotations")
    names = [name for name in own if getattr(state, name) and getattr(state, name) not in empty]
    if state.parts or state.tags:
        names.append("content")
    if state.calls is not None:
        names.append("tool_calls")
    for name, value in (state.delta_extra or {}).items():
        if not is_empty(value.entries if isinstance(value, IndexedList) else value):
            names.append(name)
    return dict.fromkeys(names, True)


def _without(delta: wire.Delta, brought: dict[str, bool]) -> wire.Delta:
    """Return a delta without some of its fields."""
    names = [n for n in delta.__struct_fields__ if n not in brought]
    if "content" in brought:
        names.remove("parts")
    left = wire.Delta(**{name: getattr(delta, name) for name in names})
    if left.extra is not None:
        fields = {name: value for name, value in left.extra.items() if name not in brought}
        left.extra = wire.Extra(fields) if fields else None
    return left
