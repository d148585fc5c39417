"""The events of tool calls, and those that end a choice."""

from __future__ import annotations

from collections import deque

from .. import events as ev
from .._decode import chunk as wire
from .._decode.text import Text
from ..events import Event
from .emitted import ChoiceProgress, EmittedCall, Kind
from .snapshot import freeze_audio, freeze_call, freeze_choice, freeze_tokens
from .state import Tool

__all__ = ["adds", "emit_arguments", "end_call", "end_choice", "fragment_to_tell"]

_DELTA_OF: dict[
    Tool, type[ev.FunctionToolCallArgumentsDeltaEvent] | type[ev.CustomToolCallInputDeltaEvent]
] = {
    "function": ev.FunctionToolCallArgumentsDeltaEvent,
    "custom": ev.CustomToolCallInputDeltaEvent,
}
_DONE_OF: dict[
    Tool, type[ev.FunctionToolCallArgumentsDoneEvent] | type[ev.CustomToolCallInputDoneEvent]
] = {
    "function": ev.FunctionToolCallArgumentsDoneEvent,
    "custom": ev.CustomToolCallInputDoneEvent,
}


def emit_arguments(call: EmittedCall, fragment: str, events: deque[Event]) -> None:
    """Emit a fragment of a call's arguments or input that its text holds by now."""
    name, text = call.name, call.text
    length = 0 if name is None else name.length
    told = (text, text.length, call.place, call.state.id, name, length)
    events.append(_DELTA_OF[call.tool](call.choice_index, fragment, *told))


def fragment_to_tell(call: EmittedCall, text: Text, fragment: str) -> str:
    """Return what is to be told of a fragment that was appended to the arguments of a call.

    Arguments that are exactly `{}` so far are held. Text may replace them, as it may replace any
    arguments where a rule of the caller's says so; then what was told already is left out.
    """
    if not fragment:
        return ""
    if call.source is not None and call.source is not text:
        fragment = fragment.removeprefix(call.text.until(call.text.length))
    else:
        fragment = call.held + fragment
    call.source, call.held = text, ""
    if call.text.length + len(fragment) == 2 and str(text) == "{}" and not call.is_done:
        call.held = fragment
        return ""
    return fragment


def end_call(
    call: EmittedCall,
    events: deque[Event],
    finish_reason: str | None = None,
    *,
    is_last: bool = False,
) -> None:
    """Emit the `.done` of a call, behind arguments that were held.

    A call that is whole needs neither the finish reason of its choice nor whether it is the last.
    """
    call.is_done = True
    state = call.state
    if call.held and state.function is not None and state.function.text is not None:
        call.text.add(state.function.text, call.held)
        emit_arguments(call, call.held, events)
        call.held = ""
    frozen = freeze_call(state, finish_reason, is_last=is_last)
    events.append(_DONE_OF[call.tool](call.choice_index, call.place, frozen))


def end_choice(progress: ChoiceProgress, events: deque[Event], *, is_text: bool) -> None:
    """Emit the `.done` of all that has none yet."""
    _announce_calls(progress, events)
    index, state, done = progress.index, progress.state, progress.done
    for kind, history in progress.texts.items():
        if history.length and kind not in done:
            done.add(kind)
            events.append(_end_of_text(index, kind, history.until(history.length)))
    calls = sorted(progress.calls.values(), key=_by_place)
    last = max((call.state.order for call in calls), default=0)
    for call in calls:
        if not call.is_done:
            end_call(call, events, state.finish_reason, is_last=call.state.order == last)
    if state.audio is not None and "audio" not in done:
        done.add("audio")
        events.append(ev.AudioDoneEvent(index, freeze_audio(state.audio)))
    if state.logprobs is not None:
        content, refusal = state.logprobs.content, state.logprobs.refusal
        if content is not None and content.count and "logprobs.content" not in done:
            done.add("logprobs.content")
            events.append(ev.LogprobsContentDoneEvent(index, freeze_tokens(content)))
        if refusal is not None and refusal.count and "logprobs.refusal" not in done:
            done.add("logprobs.refusal")
            events.append(ev.LogprobsRefusalDoneEvent(index, freeze_tokens(refusal)))
    if "choice" not in done:
        done.add("choice")
        events.append(ev.ChoiceDoneEvent(index, freeze_choice(index, state, is_text=is_text)))


def _announce_calls(progress: ChoiceProgress, events: deque[Event]) -> None:
    """Emit the first event of calls of which no name, arguments or input came."""
    calls = progress.state.calls
    for place, call in enumerate(() if calls is None else calls.items):
        other: Tool = "custom" if call.type == "custom" else "function"
        for tool in dict(call.tools()) or (other,):
            if (place, tool) not in progress.calls:
                emitted = EmittedCall(progress.index, place, tool, call)
                progress.calls[place, tool] = emitted
                emit_arguments(emitted, "", events)


def _end_of_text(index: int, kind: Kind, text: str) -> Event:
    if kind == "content":
        return ev.ContentDoneEvent(index, text)
    if kind == "refusal":
        return ev.RefusalDoneEvent(index, text)
    return ev.ReasoningDoneEvent(index, kind, text)


def adds(delta: wire.Delta) -> bool:
    """Whether a delta brings text, a call or arguments."""
    function, audio = delta.function_call, delta.audio
    return bool(
        delta.content
        or delta.parts
        or delta.refusal
        or delta.reasoning
        or delta.reasoning_content
        or (delta.tool_calls and any(map(_adds_to_call, delta.tool_calls)))
        or (function is not None and (function.name or function.arguments))
        or (audio is not None and (audio.data or audio.transcript))
    )


def _adds_to_call(fragment: wire.ToolCallFragment) -> bool:
    function, custom = fragment.function, fragment.custom
    return bool(
        fragment.id
        or (function is not None and (function.name or function.arguments))
        or (custom is not None and (custom.name or custom.input))
    )


def _by_place(call: EmittedCall) -> tuple[int, bool]:
    return call.place, call.tool == "function"
