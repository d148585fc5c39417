"""The result: a finished chat completion as frozen classes with the API's field names.

What the server sent that no field is named for is kept, at its place, in `extra`. None means that
nothing arrived. Instances never change: to get a copy with other values, use `attrs.evolve`. Treat
the mappings and lists inside `extra` as read-only, too.

Source of the fields: OpenAI API reference, "The chat completion object"; SPEC section 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, final, overload

import msgspec
from attrs import field, frozen

from ._result import convert as _convert
from ._result import outbound as _outward
from ._result.convert import NULLABLE, OR_VENDORS, Fields, LateSequence
from ._result.typed_json import TypeReader, load
from .partial import is_complete, parse_partial

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion as OpenAIChatCompletion
    from openai.types.chat import ChatCompletionAssistantMessageParam
    from pydantic_core import CoreSchema
    from typing_extensions import TypeForm

Json = object  # a class below has a field named `object`
JsonObject = Mapping[str, Json]
T = TypeVar("T")


# A frozen class sets each slot with a function call, and a completion would have fifty slots. So
# only the classes that may have thousands of instances use them.


@frozen(kw_only=True, repr=False, eq=False)
class TopLogprob(Fields):
    """One of the likeliest tokens at a position; `logprob` is a natural logarithm."""

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = field(default=None, metadata=NULLABLE)
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False)
class TokenLogprob(Fields):
    """One token of the output with its log probability and the likeliest others at its position."""

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = field(default=None, metadata=NULLABLE)
    top_logprobs: tuple[TopLogprob, ...] | None = None
    extra: JsonObject = field(factory=dict)


class TokenLogprobs(LateSequence[TokenLogprob]):
    """A tuple of `TokenLogprob` whose entries are only made when the first one is looked at."""

    __slots__ = ()


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class ChoiceLogprobs(Fields):
    """The token log probabilities of a choice: of its content, and of its refusal."""

    content: Sequence[TokenLogprob] | None = field(default=None, metadata=NULLABLE)
    refusal: Sequence[TokenLogprob] | None = field(default=None, metadata=NULLABLE)
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Function(Fields):
    """The function that a tool call names; `arguments` is JSON text as the model wrote it."""

    name: str | None = None
    arguments: str | None = None
    extra: JsonObject = field(factory=dict)

    # Copied from its choice. Private fields are facts about the stream: not shown, not compared.
    _finish_reason: str | None = None

    @property
    def arguments_complete(self) -> bool:
        """Whether `arguments` is exactly one JSON value, or empty in a choice that finished."""
        return is_complete(self.arguments) if self.arguments else bool(self._finish_reason)

    def _is_whole(self) -> bool:
        text = (self.arguments or "").lstrip(" \t\r\n")
        return text.startswith(("{", "[", "n")) and is_complete(text)

    @overload
    def arguments_as(self, kind: TypeReader[T]) -> T: ...
    @overload
    def arguments_as(self, kind: TypeForm[T]) -> T: ...
    def arguments_as(self, kind: TypeForm[T] | TypeReader[T]) -> T:
        """Read the whole arguments as a type: an attrs class, a msgspec Struct, a dataclass, a
        TypedDict, a pydantic model, builtins like `dict[str, int]`, a union of these, or pydantic's
        `TypeAdapter`. A call without arguments in a choice that finished is read as `{}`.

        Types are strict (the number 5 is not the text "5"), and nothing is repaired. Fields that
        the type does not name are ignored, unless it forbids them. An attrs class inside another
        kind of type is built without its converters. Raises ParseError with the path of everything
        that does not fit, and TypeError for a type that cannot be read from JSON.
        """
        has_none = not self.arguments and self._finish_reason
        return load(
            "{}" if has_none else self.arguments, kind, _outward.why_cut(self._finish_reason)
        )

    def partial_arguments(self) -> Json:
        """Parse as much of the arguments as has arrived; return None if nothing has.

        Each call reads the whole text; `accumulator.partial.PartialJson` follows a stream.
        Raises ImportError without the extra `partial`.
        """
        return None if self.arguments is None else parse_partial(self.arguments)


class FunctionCall(Function):
    """The deprecated predecessor of tool calls."""


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Custom(Fields):
    """The custom tool that a tool call names; `input` is free text."""

    name: str | None = None
    input: str | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class ToolCall(Fields):
    """A call to a tool: a function, or a custom tool."""

    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra: JsonObject = field(factory=dict)

    # Whether arguments that are not whole mean that the call was cut off.
    _may_be_cut: bool = False

    def _is_whole(self) -> bool:
        return bool(self.custom and self.custom.input) or (self.function or Function())._is_whole()

    @property
    def _given(self) -> str:
        return self.arguments or (self.custom and self.custom.input) or ""

    @property
    def name(self) -> str | None:
        """The name of the function or custom tool."""
        tools = (self.function, self.custom)
        return next((tool.name for tool in tools if tool and tool.name), None)

    @property
    def arguments(self) -> str | None:
        """The arguments of the function; None for a custom tool, which has `input` instead."""
        return None if self.function is None else self.function.arguments

    @overload
    def arguments_as(self, kind: TypeReader[T]) -> T: ...
    @overload
    def arguments_as(self, kind: TypeForm[T]) -> T: ...
    def arguments_as(self, kind: TypeForm[T] | TypeReader[T]) -> T:
        """Read the whole arguments of the function as a type; see `Function.arguments_as`."""
        return (self.function or Function()).arguments_as(kind)

    def partial_arguments(self) -> Json:
        """Parse as much of the arguments as has arrived; see `Function.partial_arguments`."""
        return None if self.function is None else self.function.partial_arguments()


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Audio(Fields):
    """A spoken answer: `data` is base64 of the whole audio, `expires_at` in seconds since 1970."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Message(Fields):
    """What the model said. `content` is text, or parts if the server sends parts (Mistral)."""

    role: str | None = None
    content: str | tuple[Json, ...] | None = field(default=None, metadata=NULLABLE)
    refusal: str | None = field(default=None, metadata=NULLABLE)
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    function_call: FunctionCall | None = None
    audio: Audio | None = None
    annotations: tuple[Json, ...] | None = None
    extra: JsonObject = field(factory=dict)

    _finish_reason: str | None = None

    @overload
    def content_as(self, kind: TypeReader[T]) -> T: ...
    @overload
    def content_as(self, kind: TypeForm[T]) -> T: ...
    def content_as(self, kind: TypeForm[T] | TypeReader[T]) -> T:
        """Read the whole content, which must be JSON, as a type; of parts, their text. If it is cut
        off, the error names the refusal or the finish reason. See `Function.arguments_as`.
        """
        refused = f"the model refused: {self.refusal!r}: " if self.refusal else ""
        return load(
            _outward.text_of(self.content), kind, refused or _outward.why_cut(self._finish_reason)
        )

    def partial_content(self) -> Json:
        """Parse as much of JSON content as has arrived; see `Function.partial_arguments`."""
        text = _outward.text_of(self.content)
        return None if text is None else parse_partial(text)

    def to_message(
        self, *, content_beside_calls: Literal["null", "empty", "absent"] = "null"
    ) -> ChatCompletionAssistantMessageParam:
        """Build the dict to append to the next request's `messages`: what a request's schema
        accepts, and the reasoning and signatures that providers want back.

        Calls without a name and calls that were cut (SPEC section 4) are left out.
        `content_beside_calls` is what to send for content if there are only calls: null, as the API
        writes it. Ollama and llama-cpp-python want "empty" or "absent"; DeepSeek and lmdeploy
        refuse "absent", Bedrock "empty". Raises ValueError for any other word.
        """
        return _outward.to_request(self, content_beside_calls)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Choice(Fields):
    """One of the `n` answers; `finish_reason` is None if the stream stopped before it came. `text`
    belongs to a legacy completion, whose `message` is empty.
    """

    index: int
    message: Message
    finish_reason: str | None = field(default=None, metadata=NULLABLE)
    logprobs: ChoiceLogprobs | None = field(default=None, metadata=NULLABLE)
    text: str | None = field(default=None, metadata=OR_VENDORS)
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class CompletionTokensDetails(Fields):
    """How the completion's tokens break down; all are token counts."""

    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    text_tokens: int | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class PromptTokensDetails(Fields):
    """How the prompt's tokens break down; all are token counts."""

    audio_tokens: int | None = None
    cache_write_tokens: int | None = None
    cached_tokens: int | None = None
    image_tokens: int | None = None
    text_tokens: int | None = None
    extra: JsonObject = field(factory=dict)


@final  # so that type checkers know that it is never falsy
@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Usage(Fields):
    """What the request used, in tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    extra: JsonObject = field(factory=dict)


@frozen(kw_only=True, repr=False, eq=False, slots=False)
class ChatCompletion(Fields):
    """A finished chat completion, its choices by index; `created` is in seconds since 1970."""

    id: str | None = None
    object: str = "chat.completion"
    created: int | None = None
    model: str | None = None
    choices: tuple[Choice, ...] = ()
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    moderation: JsonObject | None = None
    extra: JsonObject = field(factory=dict)

    def to_dict(self) -> dict[str, Json]:
        """Convert to builtins in the API's shape; a `text_completion` loses its empty messages."""
        found = _convert.to_dict(self)
        return _outward.without_empty_messages(found, [choice.extra for choice in self.choices])

    def __call__(self) -> ChatCompletion:
        """Return itself: `completion` is a method of `Accumulator`, but a property of streams."""
        return self

    def to_json(self) -> str:
        """Convert to compact JSON text in the API's own shape."""
        return msgspec.json.encode(self.to_dict()).decode()

    def to_openai(self) -> OpenAIChatCompletion:
        """Build openai-python's `ChatCompletion`, validated, with vendors' fields as its extras.

        Raises pydantic's ValueError if its types require what did not arrive, such as a finish
        reason, or do not know a value, such as Groq's service tiers; ImportError without openai.
        """
        return _outward.to_openai(self.to_dict())

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Json) -> CoreSchema:
        """Return the schema by which pydantic, and so FastAPI, uses the API's shape."""
        return _outward.pydantic_schema(cls)

    @classmethod
    def from_json(cls, text: str | bytes) -> ChatCompletion:
        """Read the API's shape back from JSON text. Raises ValueError as `from_dict` does."""
        return cls.from_dict(msgspec.json.decode(text))

    @classmethod
    def from_dict(cls, data: JsonObject) -> ChatCompletion:
        """Read the API's shape back, and fill in a message's role and a call's type. Raises a
        ValueError that names each field that does not fit.
        """
        found = _convert.from_dict(_outward.with_messages(data), cls)
        for choice in found.choices:
            _outward.fill(choice, is_text=found.object == "text_completion")
        return found


@final  # so that type checkers know that it is never falsy
@frozen(kw_only=True, repr=False, eq=False, slots=False)
class Timing(Fields):
    """When the chunks of a stream came, in seconds of the given clock; None if not known (yet).

    Times count from `started`, or else from when the accumulator was created. The first token is
    the first chunk with content, reasoning, a refusal, a tool call's fragment or audio. There are
    `gap_count` gaps, each between one chunk and the next; between chunks of one read a gap is 0.
    """

    time_to_first_chunk: float | None = None
    time_to_first_token: float | None = None
    gap_count: int = 0
    gap_mean: float | None = None
    gap_max: float | None = None
    duration: float | None = None
