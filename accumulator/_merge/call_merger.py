"""Fragments of tool calls, and of their deprecated predecessor, into the calls of a choice."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from .._decode import chunk as wire
from .._decode.text import COMPACT_AT
from ..errors import LimitExceededError
from ..limits import Limits
from ..partial import is_complete
from .arguments import ArgumentsText
from .json_merge import FieldMerger
from .state import ChoiceState
from .tool_calls import (
    CallsState,
    CallState,
    FunctionState,
    brief,
    count_new,
    find_call,
)

__all__ = ["CallMerger"]


class CallMerger(FieldMerger):
    """Merges the fragments of calls (SPEC section 4)."""

    __slots__ = ("_calls_left", "_is_cumulative", "_limits")

    _is_cumulative: bool  # whether each fragment of arguments is the whole so far
    _calls_left: float  # so many fragments in one delta can certainly not open too many calls
    _limits: Limits

    def _start_counting(self) -> None:
        self._calls_left = inf if self._limits.tool_calls is None else self._limits.tool_calls

    def _count_calls(self, count: int) -> None:
        """Note that a choice has so many calls."""
        if self._limits.tool_calls is not None:
            self._calls_left = min(self._calls_left, self._limits.tool_calls - count)

    def _check_calls(
        self, calls: CallsState | None, fragments: list[wire.ToolCallFragment]
    ) -> None:
        """Raise LimitExceededError if fragments would open more calls than allowed."""
        limit = self._limits.tool_calls
        if limit is not None:
            calls = calls or CallsState()
            room = limit - len(calls.items)
            if len(fragments) > room and count_new(calls, fragments) > room:
                raise LimitExceededError("tool_calls", limit)

    def _apply_calls(
        self, state: ChoiceState, fragments: Iterable[wire.ToolCallFragment], position: int
    ) -> None:
        calls = state.calls
        if calls is None:
            calls = state.calls = CallsState()
        entry = -1
        named: set[int] | None = None  # the calls that get their names from this list
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
                named = set() if named is None else named
                self._apply_fragment(calls, fragment, f"$.choices[{position}].delta", entry, named)
                continue
            known, arguments = calls.items[place].function, function.arguments
            text = None if known is None else known.text
            if (
                text is None
                or arguments is None
                or not (text.closer or (not self._is_cumulative and text.is_open()))
            ):
                named = set() if named is None else named
                self._apply_fragment(calls, fragment, f"$.choices[{position}].delta", entry, named)
                continue
            if calls.last != place:
                calls.last = place
            if self.listener is not None or self._careful:
                if self.listener is not None:
                    self.listener.on_call(place)
                self._append(text, arguments)
            else:
                pieces = text.fragments  # `_append`, without the call
                pieces.append(arguments)
                if len(pieces) >= COMPACT_AT:
                    text.compact()
            if text.closer in arguments:
                text.note(arguments)

    def _apply_fragment(
        self,
        calls: CallsState,
        fragment: wire.ToolCallFragment,
        path: str,
        entry: int,
        named: set[int],
    ) -> None:
        path = f"{path}.tool_calls[{entry}]"
        place, ambiguous = find_call(calls, fragment, named)
        if ambiguous:
            self._log.report("ambiguous_tool_call", ambiguous, path, fragment.id)
        if place is None:
            place = len(calls.items)
            index = fragment.index
            calls.items.append(CallState(order=place if index is None else index))
            self._count_calls(place + 1)
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
            call.function = call.function or FunctionState()
            self._apply_function(call.function, fragment.function, f"{path}.function")
            if fragment.function.extra is not None:
                call.function.extra = self._merge_extra(
                    "delta", call.function.extra, fragment.function.extra
                )
        if fragment.custom is not None:
            custom = call.custom = call.custom or FunctionState()
            self._apply_name(custom, fragment.custom.name)
            if fragment.custom.input is not None:
                custom.text = self._join(custom.text, fragment.custom.input)
            custom.extra = self._merge_extra("delta", custom.extra, fragment.custom.extra)
        if fragment.extra is not None:
            call.extra = self._merge_extra("delta", call.extra, fragment.extra)
        if not had_name and call.name is not None:
            named.add(place)

    def _apply_name(self, state: FunctionState, name: str | None) -> None:
        # Some servers repeat the name with every fragment.
        if name is not None and not (name and state.name and state.name.equals(name)):
            state.name = self._join(state.name, name)

    def _apply_function(
        self, state: FunctionState, fragment: wire.FunctionFragment, path: str
    ) -> None:
        self._apply_name(state, fragment.name)
        arguments, text = fragment.arguments, state.text
        if arguments is None:
            return
        if self._is_cumulative or not isinstance(text, ArgumentsText):
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
        if self._is_cumulative:
            text.closer = ""  # so that the next fragment comes here, too

    def _apply_function_call(
        self, state: ChoiceState, fragment: wire.FunctionFragment, position: int
    ) -> None:
        """Apply the deprecated field for a single call; llama-cpp-python repeats its name."""
        call = state.function_call = state.function_call or FunctionState()
        path = f"$.choices[{position}].delta.function_call"
        cumulative, self._is_cumulative = self._is_cumulative, False
        self._apply_function(call, fragment, path)
        self._is_cumulative = cumulative
        call.extra = self._merge_extra("delta.<object>", call.extra, fragment.extra)

    def _judge_arguments(self, index: int, state: ChoiceState) -> None:
        """Report arguments that are no JSON though nothing more of a choice is to come."""
        calls = sorted(state.calls.items if state.calls else (), key=lambda call: call.order)
        for number, call in enumerate(calls):
            text = None if call.function is None else call.function.text
            is_cut = state.finish_reason == "length" and call is calls[-1]
            if text and not call.judged and not is_cut:
                found = str(text)
                if not is_complete(found):
                    self._log.report(
                        "invalid_arguments",
                        f"arguments of a finished call that are no JSON: {brief(found)}",
                        f"$.choices[{index}].message.tool_calls[{number}].function.arguments",
                        found[:200],
                    )
            call.judged = True
