"""Streamed `chat.completion.chunk` objects in, one finished `chat.completion` out."""

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
    Problem,
    ServerError,
)
from .limits import Limits
from .rules import DEFAULT_RULES, Rules
from .streams import accumulate, wrap

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
    "Function",
    "FunctionCall",
    "IncompleteStreamError",
    "LimitExceededError",
    "Limits",
    "Message",
    "Problem",
    "PromptTokensDetails",
    "Rules",
    "ServerError",
    "TokenLogprob",
    "ToolCall",
    "TopLogprob",
    "Usage",
    "accumulate",
    "wrap",
]
