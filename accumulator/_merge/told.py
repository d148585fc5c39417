"""What events have told of a stream so far: texts, calls and choices, each as far as it came."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from .._decode.growing import Growing, Then
from .._decode.text import Text
from .state import ChoiceState

__all__ = ["TOOLS", "Held", "Kind", "Seen", "Told", "ToldCall", "ToldChoice", "Tool"]

Kind = Literal["content", "refusal", "reasoning", "reasoning_content", "thinking"]
Tool = Literal["function", "custom"]
_KINDS: tuple[Kind, ...] = ("content", "refusal", "reasoning", "reasoning_content")
TOOLS: tuple[Tool, ...] = ("function", "custom")


class Told(Struct):
    """A text, as far as events have told of it.

    `apart` says that the text is our own copy: of content in parts, whose text is in pieces.
    """

    growing: Growing
    length: int = 0
    apart: bool = False
    done: bool = False

    def add(self, fragment: str) -> None:
        self.length += len(fragment)
        if self.apart and self.growing.text is not None:
            self.growing.text.append(fragment)

    def now(self) -> Then:
        return Then(self.growing, self.length)


class ToldCall(Struct):
    """A call of a function or custom tool, as far as events have told of it."""

    name: Told
    text: Told
    done: bool = False


class ToldChoice(Struct):
    """A choice, as far as events have told of it. `done` holds what else had its `.done`."""

    index: int
    state: ChoiceState
    texts: dict[Kind, Told] = field(default_factory=dict)
    calls: dict[tuple[int, Tool], ToldCall] = field(default_factory=dict)
    transcript: Told | None = None
    done: set[str] = field(default_factory=set)

    def kind_of(self, text: Text) -> Kind | None:
        """Tell which of the choice's own texts one is."""
        for kind in _KINDS:
            if getattr(self.state, kind) is text:
                return kind
        return None

    def told_of(self, kind: Kind, text: Text) -> Told:
        """Give what was told of a kind of text, of which this is the whole or one of its pieces."""
        apart = text is not getattr(self.state, kind, None)
        told = self.texts.get(kind)
        if told is None:
            told = self.texts[kind] = Told(Growing(Text() if apart else text), apart=apart)
        elif apart and not told.apart:
            told.growing = Growing(Text(told.growing.until(told.length)))
            told.apart = True
        return told


class Seen(Struct):
    """A fragment that was appended to a text; `kind` where that is known from the way it went."""

    text: Text
    fragment: str
    kind: Kind | None = None


class Held(Struct):
    """Where a text belongs that ends in half a surrogate pair. It holds the text, whose identity
    would else be another's one day.
    """

    text: Text
    choice: ToldChoice
    kind: Kind | Literal["transcript"] | tuple[int, Tool]
