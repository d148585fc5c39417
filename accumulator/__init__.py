"""Streamed `chat.completion.chunk` objects in, one finished `chat.completion` out."""

from typing import TYPE_CHECKING

from ._accumulator import Accumulator
from .completion import (
    Audio,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    CompletionTokensDetails,
    Custom,
    Function,
    FunctionCall,
    Message,
    PromptTokensDetails,
    Timing,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
)
from .errors import (
    AccumulatorError,
    CheckpointError,
    DecodeError,
    IncompleteStreamError,
    LimitExceededError,
    ParseError,
    Problem,
    ServerError,
)
from .events import Event
from .limits import Limits
from .replay import split
from .rules import DEFAULT_RULES, Rules
from .streams import StreamEnd, accumulate, iter_chunks, iter_events, wrap

__all__ = [
    "DEFAULT_RULES",
    "Accumulator",
    "AccumulatorError",
    "Audio",
    "ChatCompletion",
    "CheckpointError",
    "Choice",
    "ChoiceLogprobs",
    "CompletionTokensDetails",
    "Custom",
    "DecodeError",
    "Event",
    "Function",
    "FunctionCall",
    "IncompleteStreamError",
    "LimitExceededError",
    "Limits",
    "Message",
    "ParseError",
    "Problem",
    "PromptTokensDetails",
    "Rules",
    "ServerError",
    "StreamEnd",
    "Timing",
    "TokenLogprob",
    "ToolCall",
    "TopLogprob",
    "Usage",
    "accumulate",
    "iter_chunks",
    "iter_events",
    "split",
    "wrap",
]


if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        if name == "__version__":
            # Looked up only when asked for: it takes as long as importing the package.
            from importlib.metadata import version  # noqa: PLC0415

            return version("chunk-accumulator")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
