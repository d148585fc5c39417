"""What a chunk is on the wire: Structs with the API's fields, and the decoders of JSON text.

The typed decoder is strict: it refuses a chunk with a field that no Struct has, or a value of
another type. Two other ways then lead to the same `Chunk`: `shapes` knows what vendors sent before,
and `lenient` reads any value field by field.
"""

# Annotations are not strings here: msgspec would compile each when the decoders are made.
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

JsonObject = dict[str, object]
# Used for each dict that most streams never fill: an empty dict of its own takes 64 bytes.
EMPTY: Any = MappingProxyType({})

STACK_DEPTH = 200  # levels that can be merged without exhausting the stack, whatever the limit
SAFE_LEVELS = 8  # a vendor's value with no more of them is certainly not nested too deep


class Extra(JsonObject):
    """Fields that the API does not name. It is a class of its own, so that nothing on the wire
    decodes into it.
    """

    __slots__ = ()


def _null() -> None:
    """Return the `bytes` of a token that came without them: null, which is never left out."""


class TopLogprob(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = msgspec.field(default_factory=_null)
    extra: Extra | None = None


class TokenLogprob(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = msgspec.field(default_factory=_null)
    top_logprobs: list[TopLogprob] | None = None
    extra: Extra | None = None


class Logprobs(Struct, forbid_unknown_fields=True, gc=False):
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None
    extra: Extra | None = None


class FunctionFragment(Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    arguments: str | None = None
    extra: Extra | None = None


class CustomFragment(Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    input: str | None = None
    extra: Extra | None = None


class ToolCallFragment(Struct, forbid_unknown_fields=True, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionFragment | None = None
    custom: CustomFragment | None = None
    extra: Extra | None = None


class AudioFragment(Struct, forbid_unknown_fields=True, gc=False):
    id: str | None = None
    transcript: str | None = None
    data: bytes | None = None
    expires_at: int | None = None
    extra: Extra | None = None


class Parts(list[object]):
    """A list of anything. Like `Extra`, nothing on the wire decodes into it."""

    __slots__ = ()


class ReasoningDetail(Struct, forbid_unknown_fields=True, gc=False):
    """A detail of reasoning, as OpenRouter sends it. Null and absent are not the same."""

    index: int | UnsetType | None = UNSET
    type: str | UnsetType | None = UNSET
    text: str | UnsetType | None = UNSET
    summary: str | UnsetType | None = UNSET
    format: str | UnsetType | None = UNSET
    id: str | UnsetType | None = UNSET
    data: str | UnsetType | None = UNSET
    signature: str | UnsetType | None = UNSET


class Misfit(Struct):
    """A field of the API with a value of the wrong type: where, what is wrong, and the value."""

    path: str
    message: str
    value: object

    def place(self) -> tuple[int, str]:
        """Return its level and path: the outer fields of a chunk come first."""
        return self.path.count("."), self.path


class Misfits(list[Misfit]):
    """What did not fit in a chunk. Like `Extra`, nothing on the wire decodes into it."""

    __slots__ = ()


class Closing:
    """Marks a choice whose delta is really a `message`: the server sends the whole of it at the
    end, or ignored `stream`. Nothing on the wire decodes into it. `position` counts nulls, too.
    """

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Delta(Struct, forbid_unknown_fields=True, gc=False):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    tool_calls: list[ToolCallFragment] | None = None
    function_call: FunctionFragment | None = None
    audio: AudioFragment | None = None
    annotations: Parts | None = None
    parts: Parts | None = None
    extra: Extra | None = None


class CompletionTokensDetails(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    text_tokens: int | None = None
    extra: Extra | None = None


class PromptTokensDetails(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    audio_tokens: int | None = None
    cache_write_tokens: int | None = None
    cached_tokens: int | None = None
    image_tokens: int | None = None
    text_tokens: int | None = None
    extra: Extra | None = None


class Usage(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    extra: Extra | None = None


class Choice(Struct, forbid_unknown_fields=True, gc=False):
    index: int | None = None
    delta: Delta | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    obfuscation: str | None = None
    text: str | None = None
    closing: Closing | None = None
    extra: Extra | None = None


class Chunk(Struct, forbid_unknown_fields=True, gc=False):
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    moderation: Extra | None = None
    obfuscation: str | None = None
    error: None = None  # a server's error is read the general way
    misfits: Misfits | None = None
    extra: Extra | None = None


# --- a common chunk: text, calls and logprobs, and nothing else ----------------------------
# Most chunks of most streams are common. Everything else that a chunk can contain is always null
# here, so nothing has to look at it.


class CommonDelta(Struct, forbid_unknown_fields=True, gc=False):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    tool_calls: list[ToolCallFragment] | None = None
    refusal: None = None
    function_call: None = None
    audio: ClassVar[None] = None
    annotations: ClassVar[None] = None
    parts: ClassVar[None] = None
    extra: ClassVar[None] = None


class CommonChoice(Struct, forbid_unknown_fields=True, gc=False):
    index: int | None = None
    delta: CommonDelta | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    usage: ClassVar[None] = None
    text: ClassVar[None] = None
    closing: ClassVar[None] = None
    extra: ClassVar[None] = None


class CommonChunk(Struct, forbid_unknown_fields=True, gc=False):
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    choices: list[CommonChoice] | None = None
    usage: Usage | None = None
    obfuscation: str | None = None
    error: None = None
    moderation: ClassVar[None] = None
    misfits: ClassVar[None] = None
    extra: ClassVar[None] = None


# Fields that `lenient` does not read: it treats details of reasoning as a vendor's field, with the
# same result in the end; the others are not fields of the wire.
OTHERWISE_READ = frozenset({"closing", "error", "extra", "misfits", "parts", "reasoning_details"})


class MalformedJsonError(ValueError):
    """The text is not JSON."""


class TooDeepError(ValueError):
    """The value is nested deeper than is allowed, or than the stack can take."""


# --- JSON text ----------------------------------------------------------------------------

decode_common = cast("Callable[[bytes], Chunk]", msgspec.json.Decoder(CommonChunk).decode)
_decode = msgspec.json.Decoder().decode


def decode_untyped(text: bytes | str) -> tuple[object, bool]:
    """Decode any JSON; also return whether a string may contain half a surrogate pair.

    Raises MalformedJsonError, TooDeepError.
    """
    try:
        return _decode(text), False
    except RecursionError:
        raise TooDeepError("nested deeper than the stack holds") from None
    except ValueError as error:
        # The only legal JSON that msgspec refuses is half a surrogate pair, which the stdlib
        # accepts.
        import json  # noqa: PLC0415  # takes time to import, and few streams need it

        try:
            return json.loads(text, parse_constant=_refuse, parse_float=_finite), True
        except RecursionError:
            raise TooDeepError("nested deeper than the stack holds") from None
        except ValueError:
            raise MalformedJsonError(str(error)) from None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is out of range")
    return number


def exceeds_depth(value: object, bound: int) -> bool:
    """Return whether a JSON value is nested deeper than `bound`, without recursion."""
    level = [value]
    if not isinstance(value, (dict, list)):
        return False
    for _ in range(bound):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else cast("list[object]", item))
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
