"""Note what deltas brought, and drop it from the message that closes a choice (MiniMax)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import structs

from .._decode import chunk as wire
from .._decode.lenient import ChunkReading
from .ending import index_of
from .json_merge import is_empty
from .state import AudioState, ChoiceState, ToolState

# The names of those fields of deltas that said something.
Brought = dict[str, bool]
_NOTHING = (None, wire.FunctionFragment(), wire.AudioFragment(), ToolState(), AudioState())
# The names on the wire of the fields of a delta and of a choice's state.
_NAMES = {name: name for name in wire.Delta.__struct_fields__ if name != "extra"}
_NAMES |= {"parts": "content", "calls": "tool_calls", "tags": "content"}


def leave_out_repeated(choices: Mapping[int, ChoiceState], reading: ChunkReading) -> bool:
    """Leave out of closing messages what deltas brought; return whether the chunk has one."""
    found = reading.chunk.choices or ()
    if all(choice.closing is None for choice in found):
        return False
    of_chunk: dict[int, Brought] = {}
    for position, choice in enumerate(found):
        index = index_of(choice, position)
        into, brought = choices.get(index), of_chunk.setdefault(index, {})
        if choice.delta is None:
            continue
        if choice.closing is None:
            brought |= _brought_by(choice.delta)
            continue
        if into is not None:
            into.brought = _brought_by(into) if into.brought is None else into.brought
            brought |= into.brought
        choice.delta = _without(choice.delta, brought)
        path = f"$.choices[{choice.closing.position}].delta."
        reading.chunk.misfits = wire.Misfits(
            misfit
            for misfit in reading.chunk.misfits or ()
            if not misfit.path.startswith(path)
            or re.split(r"[.\[]", misfit.path[len(path) :])[0] not in brought
        )
    return True


def note_brought(into: ChoiceState, choice: wire.Choice) -> None:
    """Note what a delta is about to bring to a choice, in a stream with closing messages."""
    if into.brought is None:
        # If the message opens its choice, what the message itself brings does not count.
        into.brought = {} if choice.closing else _brought_by(into)
    if choice.closing is None and choice.delta is not None:
        into.brought |= _brought_by(choice.delta)


def _brought_by(holder: wire.Delta | ChoiceState) -> Brought:
    """Return the fields that say something in a delta, or in all deltas of a choice so far."""
    extra = holder.delta_extra if isinstance(holder, ChoiceState) else holder.extra
    values = [(name, getattr(holder, field, None)) for field, name in _NAMES.items()]
    return {
        name: True
        for name, value in (*values, *(extra or {}).items())
        if value not in _NOTHING and not is_empty(value)
    }


def _without(delta: wire.Delta, brought: Brought) -> wire.Delta:
    """Return a delta without some of its fields."""
    nulls = {field: None for field in delta.__struct_fields__ if _NAMES.get(field) in brought}
    fields = {name: value for name, value in (delta.extra or {}).items() if name not in brought}
    return structs.replace(delta, extra=wire.Extra(fields) if fields else None, **nulls)
