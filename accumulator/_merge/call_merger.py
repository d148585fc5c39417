"""Merge fragments of tool calls, and of the deprecated `function_call`, into a choice."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from copy import copy, deepcopy
from itertools import chain
from math import inf

from msgspec import structs

from .._decode import chunk as wire
from .._decode.chunk import EMPTY
from .._decode.text import COMPACT_AT
from ..errors import LimitExceededError
from ..partial import is_complete
from .arguments import ArgumentsText
from .json_merge import FieldMerger
from .problem_log import ProblemLog, brief
from .state import CallsState, CallState, ChoiceState, ToolState
from .tool_calls import find_call, is_whole


class CallMerger(FieldMerger):
    """Merges the fragments of calls (SPEC section 4)."""

    _calls_left: float = inf  # how many calls a choice may open, whichever it is

    def _count_calls(self, calls: CallsState) -> None:
        most = self.limits.tool_calls
        if most is not None and most - len(calls.items) < self._calls_left:
            self._calls_left = most - len(calls.items)

    def _check_calls(
        self, calls: CallsState | None, lists: Sequence[Sequence[wire.ToolCallFragment]]
    ) -> None:
        """Raise LimitExceededError if lists of fragments would open more calls than allowed."""
        calls, most = calls or CallsState(), self.limits.tool_calls
        if most is None or len(calls.items) + sum(map(len, lists)) <= most:
            return
        # Merge them into copies of the calls that they may go to, and count the calls.
        places = {calls.last, len(calls.items) - 1}
        for fragment in chain.from_iterable(lists):
            index, id_ = fragment.index, fragment.id
            places.add(calls.by_index.get(index, -1))  # type: ignore[arg-type]  # None is not a key
            places.add(calls.by_id.get(id_ or "", -1))
            places.add(calls.by_both.get(f"{index} {id_}", -1))
        known = CallsState(
            [_copied(call) if i in places else call for i, call in enumerate(calls.items)],
            *(calls.by_id.copy(), calls.by_index.copy(), calls.by_both.copy(), calls.last),
        )
        trial = copy(self)
        trial._log, trial.listener, trial._halved = ProblemLog(), None, EMPTY
        for fragments in lists:
            trial._apply_calls(ChoiceState(calls=known), fragments, 0)
        if len(known.items) > most:
            raise LimitExceededError("tool_calls", most)

    def _apply_calls(
        self, state: ChoiceState, fragments: Iterable[wire.ToolCallFragment], position: int
    ) -> None:
        calls = state.calls
        if calls is None:
            calls = state.calls = CallsState()
        named: dict[int, bool] = {}  # the calls that get their names from this list
        for entry, fragment in enumerate(fragments):
            # After the first, the fragments of nearly every call bring just an index and arguments.
            function = fragment.function
            if (
                function is None
                or fragment.custom is not None
                or fragment.extra is not None
                or function.extra is not None
                or (
                    (fragment.type or fragment.id is not None or function.name is not None)
                    and not _repeats_call(calls, fragment, function, named)
                )
                or not self._append_arguments(calls, fragment.index, function.arguments)
            ):
                path = f"$.choices[{position}].delta.tool_calls[{entry}]"
                self._apply_fragment(calls, fragment, path, named)

    def _append_arguments(
        self, calls: CallsState, index: int | None, arguments: str | None
    ) -> bool:
        """Append to the arguments of an open call; return whether that was possible."""
        place = calls.by_index.get(index, -1)  # type: ignore[arg-type]  # None is not a key
        known = calls.items[place].function if place >= 0 else None
        text = None if known is None else known.text
        if text is None or arguments is None or self.rules.is_cumulative:
            return False
        if not text.closer and not text.accepts(arguments):
            return False
        calls.last = place
        if self.listener is not None:
            self.listener.progress.on_call(place)
        if self._checks_halves:
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
        place = self._find_or_open(calls, fragment, path, named)
        if self.listener is not None:
            self.listener.progress.on_call(place, fragment)
        call = calls.items[place]
        had_name = call.name is not None
        if fragment.id is not None and not call.id:
            calls.identify(place, fragment.id)
        if fragment.type is not None and not call.type:
            call.type = fragment.type
        if fragment.function is not None:
            function = call.function = call.function or ToolState()
            self._apply_function(
                function, fragment.function, f"{path}.function", cumulative=self.rules.is_cumulative
            )
            if fragment.function.extra is not None:
                function.extra = self._merge_extra("delta", function.extra, fragment.function.extra)
        if fragment.custom is not None:
            self._apply_custom(call, fragment.custom)
        if fragment.extra is not None:
            call.extra = self._merge_extra("delta", call.extra, fragment.extra)
        if not had_name and call.name is not None:
            named[place] = True

    def _find_or_open(
        self, calls: CallsState, fragment: wire.ToolCallFragment, path: str, named: dict[int, bool]
    ) -> int:
        """Return the place of the call that a fragment belongs to, which may be a new one."""
        place, ambiguous = find_call(calls, fragment, named)
        if ambiguous:
            self._log.report("ambiguous_tool_call", ambiguous, path, fragment.id)
        if place is None:
            place = len(calls.items)
            calls.items.append(CallState(order=place))
            self._count_calls(calls)
        if fragment.index is not None:
            calls.hold(place, fragment.index)
        calls.last = place
        return place

    def _apply_custom(self, call: CallState, fragment: wire.CustomFragment) -> None:
        custom = call.custom = call.custom or ToolState()
        self._apply_name(custom, fragment.name)
        if fragment.input is not None:
            custom.text = self._join(custom.text, fragment.input)
        custom.extra = self._merge_extra("delta", custom.extra, fragment.extra)

    def _apply_name(self, state: ToolState, name: str | None) -> None:
        # Some servers repeat the name with every fragment.
        if name is not None and not (name and state.name and state.name.equals(name)):
            state.name = self._join(state.name, name)

    def _apply_function(
        self, state: ToolState, fragment: wire.FunctionFragment, path: str, *, cumulative: bool
    ) -> None:
        self._apply_name(state, fragment.name)
        arguments, text = fragment.arguments, state.text
        if arguments is None:
            return
        if cumulative or not isinstance(text, ArgumentsText):
            text = state.text = ArgumentsText()
        elif not text.accepts(arguments):
            if text.is_repeated_by(arguments):
                return  # vLLM and OpenCodex flush all of it again at the end
            if arguments.startswith("{") and str(text) == "{}":
                text = state.text = ArgumentsText()  # a placeholder of Envoy and llama-stack
            else:
                found = f"more after complete arguments: {brief(arguments)}"
                self._log.report("arguments_after_end", found, f"{path}.arguments", arguments[:200])
        if arguments:  # the first fragment of a call brings none in most streams
            self._append(text, arguments)
            text.note(arguments)

    def _apply_function_call(
        self, state: ChoiceState, fragment: wire.FunctionFragment, position: int
    ) -> None:
        """Apply the deprecated field for a single call; llama-cpp-python repeats its name."""
        call = state.function_call = state.function_call or ToolState()
        path = f"$.choices[{position}].delta.function_call"
        self._apply_function(call, fragment, path, cumulative=False)
        call.extra = self._merge_extra("delta.<object>", call.extra, fragment.extra)

    def _judge_arguments(self, index: int, state: ChoiceState) -> None:
        """Report arguments that are not JSON although nothing more of a choice is to come."""
        calls = [] if state.calls is None else state.calls.in_order()
        for number, call in enumerate(calls):
            text = None if call.function is None else call.function.text
            is_cut = state.finish_reason == "length" and call is calls[-1]
            was_judged, call.judged = call.judged, True
            if was_judged or is_cut or text is None:
                continue
            found = str(text)
            if text.half or (found and not is_complete(found)):
                path = f"$.choices[{index}].message.tool_calls[{number}].function.arguments"
                why = f"arguments of a finished call that are not JSON: {brief(found)}"
                self._log.report("invalid_arguments", why, path, found[:200])


def _repeats_call(
    calls: CallsState,
    fragment: wire.ToolCallFragment,
    function: wire.FunctionFragment,
    named: Container[int],
) -> bool:
    """Return whether the id, type and name in a fragment are empty or those of the call at its
    index, as SGLang and DashScope send them; `named` are the calls named by the same list.
    """
    place = calls.by_index.get(fragment.index, -1)  # type: ignore[arg-type]  # None is not a key
    if place < 0 or place in named:
        return False
    call, id_, name = calls.items[place], fragment.id, function.name
    known = None if call.function is None else call.function.name
    if not (known and call.id and call.type) or (id_ and id_ != call.id):
        return False
    return not name or (known.equals(name) and not is_whole(call))


def _copied(call: CallState) -> CallState:
    """Return a copy to merge fragments into, with only the fields that identify a call."""
    bare = structs.replace(call, extra=None)
    for name in ("function", "custom"):
        tool = getattr(call, name)
        if tool is not None:
            for text in (tool.name, tool.text):
                str(text)  # once joined, the text itself is shared, not copied
            setattr(bare, name, structs.replace(tool, extra=None))
    return deepcopy(bare)
