"""The template of chunks that are objects: an SDK's, or mappings."""

from __future__ import annotations

from typing import Any, cast

from ._decode.chunk import Chunk
from ._decode.text import COMPACT_AT, Text, holds_half
from ._learning import the_change
from ._merge.reducer import Reducer

__all__ = ["ObjectTemplate", "learn_object_template"]

Fields = dict[str, object]
_CONSTANTS = (str, int, type(None))


class ObjectTemplate:
    """An SDK's chunk object, or a mapping, without the one text that changes.

    What stands around it is compared as it is: three dicts against the three of a chunk that was
    read in full and applied.
    """

    __slots__ = ("_choice", "_chunk", "_created", "_delta", "_field", "_size", "_text")

    def __init__(
        self, parts: tuple[Fields, Fields, Fields], field: str, size: int, text: Text
    ) -> None:
        chunk, choice, delta = parts
        self._chunk = {**chunk, "choices": None}
        self._choice = {**choice, "delta": None}
        self._delta = {**delta, field: None}
        self._created = type(chunk.get("created"))
        self._field = field
        self._text = text
        self._size = size - len(cast("str", delta[field]))

    def take(self, chunk: object, room: float) -> int:
        """Append the chunk's text, if nothing else is in it; return how many characters the chunk
        holds, 0 if nothing was done or they are more than `room`.
        """
        if type(chunk) is dict:
            parts = _object_parts(chunk)
            if parts is None:
                return 0
            fields, choice, delta = parts
        else:  # as `_object_parts` has it, without the call
            try:
                fields = chunk.__dict__
                (of_choice,) = cast("list[Any]", fields["choices"])
                choice = of_choice.__dict__
                of_delta: Any = choice["delta"]
                delta = of_delta.__dict__
                if (
                    chunk.__pydantic_extra__  # type: ignore[attr-defined]  # as there
                    or of_choice.__pydantic_extra__
                    or of_delta.__pydantic_extra__
                ):
                    return 0
            except (AttributeError, LookupError, TypeError, ValueError):
                return 0
        text = delta.get(self._field)
        if type(text) is not str or (not text.isascii() and holds_half(text)):
            return 0
        # What changes is put in for the comparison, and taken out again: nothing of the caller's
        # is kept.
        self._chunk["choices"] = fields["choices"]
        self._choice["delta"] = choice["delta"]
        self._delta[self._field] = text
        same = (
            delta == self._delta
            and choice == self._choice
            and fields == self._chunk
            # 1 == 1.0 == True, but not for a field that should be an integer.
            and type(fields.get("created")) is self._created
            and type(choice.get("index")) is int
        )
        self._chunk["choices"] = self._choice["delta"] = None
        size = self._size + len(text)
        if not same or size > room:
            return 0
        fragments = self._text.fragments  # as `append` does, without the call
        fragments.append(text)
        if len(fragments) >= COMPACT_AT:
            self._text.compact()
        return size


def _object_parts(chunk: object) -> tuple[Fields, Fields, Fields] | None:
    """Give the fields of a chunk, of its one choice and of its delta, if they are all there is."""
    if type(chunk) is dict:
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return None
        delta = choices[0].get("delta")
        return (chunk, choices[0], delta) if type(delta) is dict else None
    try:
        fields = chunk.__dict__
        (choice,) = fields["choices"]
        of_choice = choice.__dict__
        delta = of_choice["delta"]
        # pydantic keeps apart what a class has no field for.
        if (
            chunk.__pydantic_extra__  # type: ignore[attr-defined]  # an AttributeError is an answer
            or choice.__pydantic_extra__
            or delta.__pydantic_extra__
        ):
            return None
        return fields, of_choice, delta.__dict__
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def learn_object_template(
    value: object, chunk: Chunk, size: int, reducer: Reducer
) -> ObjectTemplate | None:
    """Learn from an object that was read as a chunk, which was applied last."""
    parts = _object_parts(value)
    found = the_change(chunk, many=False)
    if parts is None or found is None or found.choice.logprobs is not None:
        return None
    field, choice, fragment, twin, inside = found
    if chunk.usage is not None or chunk.extra is not None or twin is not None or inside is not None:
        return None
    text = reducer.open_text(field, choice.index or 0, None)
    if text is None or fragment is not None or not reducer.state.model:
        return None
    constant = [*parts[0].items(), *parts[1].items(), *parts[2].items()]
    if type(parts[2].get(field)) is str and all(
        type(value) in _CONSTANTS or name in ("choices", "delta") for name, value in constant
    ):
        return ObjectTemplate(parts, field, size, text)
    return None
