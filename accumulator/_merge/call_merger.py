"""Fragments of tool calls, and of their deprecated predecessor, into the calls of a choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import chain

from .._decode import chunk as wire
from .._decode.text import COMPACT_AT
from ..errors import LimitExceededError
from ..partial import is_complete
from .arguments import ArgumentsText
from .json_merge import FieldMerger
from .problem_log import ProblemLog, brief
from .state import CallsState, CallState, ChoiceState, FunctionState
from .tool_calls import find_call, reachable

__all__ = ["CallMerger"]


class CallMerger(FieldMerger):
    """Merges the fragments of calls (SPEC section 4)."""

    __slots__ = ("_calls_left", "_is_cumulative", "_most_calls")

    # Set by the reducer, whose constructor each stream pays for.
    _is_cumulative: bool  # whether each fragment of arguments is the whole so far
    _most_calls: float  # of a choice
    _calls_left: float  # so many fragments in one delta can certainly not open too many

    def _count_calls(self, calls: CallsState) -> None:
        self._calls_left = min(self._calls_left, self._most_calls - len(calls.items))

    def _check_calls(
        self, calls: CallsState | None, lists: Sequence[Sequence[wire.ToolCallFragment]]
    ) -> None:
        """Raise LimitExceededError if lists of fragments would open more calls than allowed."""
        calls = calls or CallsState()
        most = self._most_calls
        if len(calls.items) + sum(map(len, lists)) > most and self._count_with(calls, lists) > most:
            raise LimitExceededError("tool_calls", int(most))

    def _count_with(
        self, calls: CallsState, lists: Sequence[Sequence[wire.ToolCallFragment]]
    ) -> int:
        """Return how many calls there would be, by merging the lists into copies."""
        trial = copy(self)
        trial._log, trial.listener, trial._halved = ProblemLog(), None, {}
        items = calls.items.copy()
        for place in set(reachable(calls, chain.from_iterable(lists))):
            items[place] = items[place].copied()
        known = CallsState(
            items, calls.by_id.copy(), calls.by_index.copy(), calls.by_both.copy(), calls.last
        )
        for fragments in lists:
            trial._apply_calls(ChoiceState(calls=known), fragments, 0)
        return len(items)

    def _apply_calls(
        self, state: ChoiceState, fragments: Iterable[wire.ToolCallFragment], position: int
    ) -> None:
        calls = state.calls
        if calls is None:
            calls = state.calls = CallsState()
        entry = -1
        named: dict[int, bool] = {}  # the calls that get their names from this list
        for fragment in fragments:
            entry += 1
            # All but the first fragment of nearly every call bring an index and arguments.
            function = fragment.function
            if (
                function is None
                or fragment.id is not None
                or function.name is not None
                or fragment.type is not None
                or fragment.custom is not None
                or fragment.extra is not None
                or function.extra is not None
                or not self._append_arguments(calls, fragment.index, function.arguments)
            ):
                path = f"$.choices[{position}].delta.tool_calls[{entry}]"
                self._apply_fragment(calls, fragment, path, named)

    def _append_arguments(
        self, calls: CallsState, index: int | None, arguments: str | None
    ) -> bool:
        """Append to the arguments of a call that is open; return whether there is one."""
        place = calls.by_index.get(index, -1)  # type: ignore[arg-type]  # None is no key
        known = calls.items[place].function if place >= 0 else None
        text = None if known is None else known.text
        is_open = text is not None and (text.closer or text.is_open())
        if text is None or arguments is None or self._is_cumulative or not is_open:
            return False
        calls.last = place
        if self.listener is not None:
            self.listener.on_call(place)
        if self._careful:
            self._append(text, arguments)
        else:
            fragments = text.fragments  # `_append`, without the call
            fragments.append(arguments)
            if len(fragments) >= COMPACT_AT:
                text.compact()
        if text.closer in arguments:
            text.note(arguments)
        return True

    def _apply_fragment(
        self, calls: CallsState, fragment: wire.ToolCallFragment, path: str, named: dict[int, bool]
    ) -> None:
        place, ambiguous = find_call(calls, fragment, named)
        if ambiguous:
            self._log.report("ambiguous_tool_call", ambiguous, path, fragment.id)
        if place is None:
            place = self._open_call(calls, fragment.index)
        if fragment.index is not None:
            calls.hold(place, fragment.index)
        if self.listener is not None:
            self.listener.on_call(place)
        calls.last = place
        call = calls.items[place]
        had_name = call.name is not None
        if fragment.id is not None and not call.id:
            calls.identify(place, fragment.id)
        if fragment.type is not None and not call.type:
            call.type = fragment.type
        if fragment.function is not None:
            function = call.function = call.function or FunctionState()
            self._apply_function(
                function, fragment.function, f"{path}.function", cumulative=self._is_cumulative
            )
            function.extra = self._merge_extra("delta", function.extra, fragment.function.extra)
        if fragment.custom is not None:
            self._apply_custom(call, fragment.custom)
        call.extra = self._merge_extra("delta", call.extra, fragment.extra)
        if not had_name and call.name is not None:
            named[place] = True

    def _open_call(self, calls: CallsState, index: int | None) -> int:
        """Open a call, and return its place."""
        place = len(calls.items)
        calls.items.append(CallState(order=place if index is None else index))
        self._count_calls(calls)
        return place

    def _apply_custom(self, call: CallState, fragment: wire.CustomFragment) -> None:
        custom = call.custom = call.custom or FunctionState()
        self._apply_name(custom, fragment.name)
        if fragment.input is not None:
            custom.text = self._join(custom.text, fragment.input)
        custom.extra = self._merge_extra("delta", custom.extra, fragment.extra)

    def _apply_name(self, state: FunctionState, name: str | None) -> None:
        # Some servers repeat the name with every fragment.
        if name is not None and not (name and state.name and state.name.equals(name)):
            state.name = self._join(state.name, name)

    def _apply_function(
        self, state: FunctionState, fragment: wire.FunctionFragment, path: str, *, cumulative: bool
    ) -> None:
        self._apply_name(state, fragment.name)
        arguments, text = fragment.arguments, state.text
        if arguments is None:
            return
        if cumulative or not isinstance(text, ArgumentsText):
            text = state.text = ArgumentsText()
        elif not text.takes(arguments):
            if text.is_repeated_by(arguments):
                return  # vLLM and OpenCodex flush the whole again at the end
            if arguments.startswith("{") and str(text) == "{}":
                text = state.text = ArgumentsText()  # a placeholder of Envoy and llama-stack
            else:
                found = f"more behind whole arguments: {brief(arguments)}"
                self._log.report("arguments_after_end", found, f"{path}.arguments", arguments[:200])
        self._append(text, arguments)
        text.note(arguments)
        if cumulative:
            text.closer = ""  # so that the next fragment comes here, too

    def _apply_function_call(
        self, state: ChoiceState, fragment: wire.FunctionFragment, position: int
    ) -> None:
        """Apply the deprecated field for a single call; llama-cpp-python repeats its name."""
        call = state.function_call = state.function_call or FunctionState()
        path = f"$.choices[{position}].delta.function_call"
        self._apply_function(call, fragment, path, cumulative=False)
        call.extra = self._merge_extra("delta.<object>", call.extra, fragment.extra)

    def _judge_arguments(self, index: int, state: ChoiceState) -> None:
        """Report arguments that are no JSON though nothing more of a choice is to come."""
        calls = sorted(state.calls.items if state.calls else (), key=lambda call: call.order)
        for number, call in enumerate(calls):
            text = None if call.function is None else call.function.text
            is_cut = state.finish_reason == "length" and call is calls[-1]
            was_judged, call.judged = call.judged, True
            if was_judged or is_cut or not text:
                continue
            found = str(text)
            if text.half or not is_complete(found):
                self._log.report(
                    "invalid_arguments",
                    f"arguments of a finished call that are no JSON: {brief(found)}",
                    f"$.choices[{index}].message.tool_calls[{number}].function.arguments",
                    found[:200],
                )
