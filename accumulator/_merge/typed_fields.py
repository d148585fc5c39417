"""The fields of a delta and of a choice that have a type of their own (SPEC section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from msgspec import UNSET, to_builtins

from .._decode import chunk as wire
from .._decode.chunk import JsonObject
from .._decode.text import Text
from .json_merge import FieldMerger, IndexedList, text_in
from .state import AudioState, ChoiceState, LogprobsState, TokensState


class TypedFieldMerger(FieldMerger):
    """Merges reasoning, parts of content, audio and logprobs."""

    def _apply_reasoning(self, state: ChoiceState, delta: wire.Delta) -> None:
        if delta.reasoning is not None:
            if state.reasoning is None:
                state.reasoning = Text()
            self._append(state.reasoning, delta.reasoning)
        if delta.reasoning_content is not None:
            if state.reasoning_content is None:
                state.reasoning_content = Text()
            self._append(state.reasoning_content, delta.reasoning_content)
        if delta.reasoning_details is not None:
            self._apply_details(state, delta.reasoning_details)

    def _apply_details(self, state: ChoiceState, details: Iterable[wire.ReasoningDetail]) -> None:
        """Merge details of reasoning by index and type, as their rows in the merge table say."""
        extra = state.delta_extra = {} if state.delta_extra is None else state.delta_extra
        entries = extra.get("reasoning_details")
        if not isinstance(entries, IndexedList):
            entries = extra["reasoning_details"] = IndexedList()
        for detail in details:
            index, kind = detail.index, detail.type
            if not (type(index) is int and type(kind) is str):  # OpenRouter's of Gemini, at first
                self._merge_extra("delta", extra, {"reasoning_details": [to_builtins(detail)]})
                continue
            place = entries.places.get((index, kind))
            if place is None:
                into = entries.find_or_add(index, kind)
                into["index"], into["type"] = index, kind or text_in(into.get("type"))
            else:
                into = entries.entries[place]
            self._apply_detail(into, detail)

    def _apply_detail(self, into: JsonObject, detail: wire.ReasoningDetail) -> None:
        # Not a loop over names: every chunk with reasoning may come here.
        if detail.text is not UNSET:
            text = into.get("text")
            if type(text) is Text and detail.text is not None:
                self._append(text, detail.text)
            else:
                into["text"] = self._joined(text, detail.text)
        if detail.summary is not UNSET:
            into["summary"] = self._joined(into.get("summary"), detail.summary)
        if detail.format is not UNSET:
            into["format"] = into.get("format") if detail.format is None else detail.format
        if detail.id is not UNSET:
            into["id"] = _latest(into.get("id"), detail.id)
        if detail.data is not UNSET:
            into["data"] = _latest(into.get("data"), detail.data)
        if detail.signature is not UNSET:
            into["signature"] = _latest(into.get("signature"), detail.signature)

    def _joined(self, known: object, fragment: str | None) -> object:
        return known if fragment is None else self._join(known, fragment)

    def _apply_content(self, state: ChoiceState, delta: wire.Delta) -> None:
        """Apply the content of a delta to a choice that has no content text yet."""
        if state.parts is None:
            state.content = self._join(None, cast("str", delta.content))
        else:
            self._add_part(state.parts, delta.content)

    def _apply_parts(self, state: ChoiceState, parts: Iterable[object]) -> None:
        if state.parts is None:
            state.parts = []
            if state.content:
                state.parts.append({"type": "text", "text": state.content})
            state.content = None
        for part in parts:
            self._add_part(state.parts, part)

    def _apply_annotations(self, state: ChoiceState, annotations: Iterable[object]) -> None:
        state.annotations = state.annotations or []
        state.annotations += cast("list[object]", self._healed(list(annotations)))

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
        into, run = state.logprobs, logprobs.content
        if into is None:
            into = state.logprobs = LogprobsState()
        if run is not None:
            tokens = into.content
            if tokens is None:
                tokens = into.content = TokensState()
            tokens.runs.append(run)  # `TokensState.add`, without the call
            tokens.count += len(run)
        if logprobs.refusal is not None:
            into.refusal = into.refusal or TokensState()
            into.refusal.add(logprobs.refusal)
        if logprobs.extra is not None:
            into.extra = self._merge_extra("choice.logprobs", into.extra, logprobs.extra)


def _latest(known: object, value: str | None) -> object:
    return known if value is None else value
