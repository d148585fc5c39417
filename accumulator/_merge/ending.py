"""How a stream and each of its choices end (SPEC sections 4, 6 and 9).

- A stream is read until `[DONE]`, an error instead of the rest, or `close`.
- A choice's finish reason does not end it: what comes later is applied, and reported. Its calls are
  due from then on, and judged once a chunk adds nothing to the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import field

from .._decode import chunk as wire
from .._decode.text import heal_value
from .call_merger import CallMerger
from .problem_log import brief
from .state import ChoiceState, State

_BROUGHT = (
    "content parts refusal reasoning reasoning_content tool_calls function_call audio".split()
)


class Ending(CallMerger):
    """Ends a stream and its choices."""

    state: State = field(default_factory=State)
    is_reading: bool = True  # neither ended nor closed
    _is_failing: bool = False  # whether the current chunk contains an error of its own

    def end(self) -> None:
        """End the stream: `[DONE]` was read."""
        state = self.state
        if self.is_reading and not state.is_finished and (state.choices or state.has_usage):
            self._log.report("no_finish_reason", "[DONE] came before every choice had ended")
        state.done = True
        self._stop()

    def fail(self, error: object) -> None:
        """Fail the stream: the server sent an error instead of the rest."""
        error, lone = heal_value(error)
        self._report_lone(lone)
        self.state.failed = True
        self.state.server_error = error
        self._log.report("server_error", f"the server sent an error: {brief(error)}", None, error)
        self._stop()

    def close(self) -> None:
        """Close the stream: no more input will come."""
        self.state.closed = True
        if self.is_reading:
            self._stop()

    def _stop(self) -> None:
        self.is_reading = False
        if self.state.due:
            for index in sorted(self.state.due):
                self._judge_arguments(index, self.state.choices[index])
            self.state.due = None
        if self._halved:
            self._end_halves()

    def _finish(self, state: ChoiceState, finish_reason: str, index: int) -> None:
        state.finish_reason = finish_reason
        if finish_reason == "error":  # OpenRouter
            self._fail_choice(state, True, index)
        if state.calls is not None:
            self._set_due(index, went_on=False)

    def _fail_choice(self, state: ChoiceState, error: object, index: int) -> None:
        if state.error is None and not self._is_failing:
            message = f"choice {index} failed" + ("" if error is True else f": {brief(error)}")
            found = None if error is True else error
            self._log.report("server_error", message, f"$.choices[{index}]", found)
        if state.error is None or state.error is True:
            state.error, _ = heal_value(error)

    def _check_finished(self, choice: wire.Choice, index: int, position: int) -> None:
        """Report what a chunk brings to a choice that has finished."""
        brings, due = _brings(choice), self.state.due
        is_due = due is not None and index in due
        if due is not None and is_due:
            due[index] = not choice.finish_reason and (brings or due[index])
        if not brings:
            return
        self._log.report(
            "content_after_finish",
            f"choice {index} goes on after its finish reason",
            f"$.choices[{position}].delta",
        )
        if calls_of(choice) and not is_due:
            self._set_due(index, went_on=True)

    def _set_due(self, index: int, *, went_on: bool) -> None:
        """Note that a choice's calls are to be judged, and whether it went on after its end."""
        if self.state.due is None:
            self.state.due = {}
        self.state.due[index] = went_on

    def _judge_due(self, due: dict[int, bool], choices: Sequence[wire.Choice]) -> None:
        """Judge the calls of choices to which a chunk adds nothing: it has them, or no choices."""
        released, adding = set() if choices else set(due), set[int]()
        for position, choice in enumerate(choices):
            index = index_of(choice, position)
            if index in due:
                reason = choice.finish_reason
                another = reason and reason != self.state.choices[index].finish_reason
                adds = _brings(choice) or another or (due[index] and reason)
                (adding if adds else released).add(index)
        for index in sorted(released - adding):
            del due[index]
            self._judge_arguments(index, self.state.choices[index])


def index_of(choice: wire.Choice, position: int) -> int:
    """Return the index of a choice, or else its position among the chunk's choices."""
    return position if choice.index is None else choice.index


def calls_of(choice: wire.Choice) -> Sequence[wire.ToolCallFragment]:
    return () if choice.delta is None else choice.delta.tool_calls or ()


def brings_text(choice: wire.Choice) -> bool:
    """Return whether the text of a choice is a legacy completion's, and does not just repeat the
    delta beside it.
    """
    return choice.text is not None and (choice.delta is None or choice.closing is not None)


def _brings(choice: wire.Choice) -> bool:
    """Return whether a choice brings text, a call or audio."""
    if choice.text and brings_text(choice):
        return True
    return choice.delta is not None and any(getattr(choice.delta, name) for name in _BROUGHT)
