"""What deltas brought, for the whole message that closes a choice and says it again (MiniMax)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._decode import chunk as wire
from .._decode.lenient import Reading
from .json_merge import IndexedList, is_empty
from .state import AudioState, ChoiceState, FunctionState

__all__ = ["index_of", "leave_out_repeated", "note_brought"]

# The names of the fields of a delta whose values say something.
Names = dict[str, bool]
_NOTHING = (None, wire.FunctionFragment(), wire.AudioFragment(), FunctionState(), AudioState())
_FIELDS = {name: name for name in wire.Delta.__struct_fields__ if name != "extra"}
_FIELDS["parts"] = "content"
# Where a choice's state has what these fields brought.
_KEPT = {**_FIELDS, "calls": "tool_calls", "tags": "content"}


def index_of(choice: wire.Choice, position: int) -> int:
    """Return the index of a choice, or where it stands among a chunk's choices."""
    return position if choice.index is None else choice.index


def leave_out_repeated(choices: Mapping[int, ChoiceState], reading: Reading) -> bool:
    """Leave out of closing messages what deltas brought; return whether there is any."""
    found = reading.chunk.choices or ()
    if all(choice.closing is None for choice in found):
        return False
    of_chunk: dict[int, Names] = {}
    for position, choice in enumerate(found):
        index = index_of(choice, position)
        into, brought = choices.get(index), of_chunk.setdefault(index, {})
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
    return True


def note_brought(into: ChoiceState, choice: wire.Choice) -> None:
    """Note what a delta is about to bring to a choice, of a stream in which messages close."""
    if into.brought is None:
        # What came with the message itself, the first of its choice, does not count.
        into.brought = {} if choice.delta is None or choice.closing else _brought_by(into)
    if choice.closing is None and choice.delta is not None:
        into.brought |= _named_by(choice.delta)


def _named_by(delta: wire.Delta) -> Names:
    return _say_something(delta, _FIELDS, delta.extra)


def _brought_by(state: ChoiceState) -> Names:
    return _say_something(state, _KEPT, state.delta_extra)


def _say_something(
    holder: object, fields: Mapping[str, str], extra: Mapping[str, object] | None
) -> Names:
    values = [(name, getattr(holder, field, None)) for field, name in fields.items()]
    return {
        name: True
        for name, value in (*values, *(extra or {}).items())
        if not is_empty(value.entries if isinstance(value, IndexedList) else value)
        and value not in _NOTHING
    }


def _without(delta: wire.Delta, brought: Names) -> wire.Delta:
    """Return a delta without some of its fields."""
    left = wire.Delta(
        **{field: getattr(delta, field) for field, name in _FIELDS.items() if name not in brought}
    )
    fields = {name: value for name, value in (delta.extra or {}).items() if name not in brought}
    left.extra = wire.Extra(fields) if fields else None
    return left
