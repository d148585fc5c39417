"""Reasoning between tags at the start of content, for servers without a reasoning parser.

Opt-in, SPEC section 3. As long as a choice has no `content`, fragments are searched for tags
here. The choice's `tags` keeps what was searched, less the reasoning that was found, to be searched
again together with the next fragment. Once there is content, the reducer appends to it as usual.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

from .._decode.chunk import Chunk, Delta
from .chat import ChatReducer
from .state import ChoiceState

_OPEN, _CLOSE = "<think>", "</think>"
_BLANKS = " \t\r\n"
_MOST_BLANKS = 256  # before the tag; a server may send them without end


class ThinkTagReducer(ChatReducer):
    """Moves what is between `<think>` and `</think>` to `reasoning_content`."""

    think_tags: ClassVar[bool] = True

    def may_repeat(self, chunk: Chunk) -> bool:
        """Return whether the next events may be like this chunk's; inside tags they may not."""
        inside = any(
            (choice.tags or "").startswith(_OPEN) for choice in self.state.choices.values()
        )
        return not inside and super().may_repeat(chunk)

    def _apply_content(self, state: ChoiceState, delta: Delta) -> None:
        before = state.tags or ""
        text = before + cast("str", delta.content)
        is_apart = not before.startswith(_OPEN) and bool(
            state.reasoning or state.reasoning_content or delta.reasoning or delta.reasoning_content
        )
        is_read = not is_apart and state.parts is None
        thought, content, state.tags = _split_tags(text) if is_read else ("", text, None)
        if thought:
            self._add_thought(state, thought)
        if content is not None:
            super()._apply_content(state, Delta(content=content))
        elif state.finish_reason:
            self._release(state)

    def _apply_parts(self, state: ChoiceState, parts: Iterable[object]) -> None:
        self._release(state)
        state.tags = None
        super()._apply_parts(state, parts)

    def _finish(self, state: ChoiceState, finish_reason: str, index: int) -> None:
        self._release(state)
        super()._finish(state, finish_reason, index)

    def _stop(self) -> None:
        for state in self.state.choices.values():
            self._release(state)
        super()._stop()

    def _release(self, state: ChoiceState) -> None:
        """Treat what might have become a tag as text."""
        tags = state.tags
        if tags is None:
            return
        if not tags.startswith(_OPEN):
            state.tags = None
            super()._apply_content(state, Delta(content=tags))
        elif not tags.endswith(_CLOSE) and tags != _OPEN:
            self._add_thought(state, tags[len(_OPEN) :])
            state.tags = _OPEN

    def _add_thought(self, state: ChoiceState, thought: str) -> None:
        state.reasoning_content = self._join(state.reasoning_content, thought)
        if state.brought is not None:  # the next closing message repeats it
            state.brought["reasoning_content"] = True


def _split_tags(text: str) -> tuple[str, str | None, str | None]:
    """Return the reasoning at the start of a text, the content after it, and, while there is none,
    what to search again together with the next fragment.
    """
    begun = text.lstrip(_BLANKS)
    is_tag = begun.startswith(_OPEN)
    if len(text) - len(begun) > _MOST_BLANKS or not (is_tag or _OPEN.startswith(begun)):
        return "", text, None
    if not is_tag:
        return "", None, text
    thought, close, content = begun[len(_OPEN) :].partition(_CLOSE)
    if close:
        content = content.lstrip(_BLANKS)
        return (thought, content, None) if content else (thought, None, _OPEN + _CLOSE)
    held = next(n for n in range(len(_CLOSE) - 1, -1, -1) if thought.endswith(_CLOSE[:n]))
    whole = len(thought) - held
    return thought[:whole], None, _OPEN + thought[whole:]
