"""A completion as others want it: as a message for the next request, as an object of openai's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from .convert import JsonObject, copy_json, to_dict

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionAssistantMessageParam
    from pydantic_core import CoreSchema

# DeepSeek and Moonshot want `reasoning_content` back, OpenRouter `reasoning` and
# `reasoning_details`, GitHub Copilot `reasoning_text` and `reasoning_opaque`, Gemini the signature
# in `extra_content`, LiteLLM `thinking_blocks`.
_SENT_BACK = (
    "reasoning reasoning_content reasoning_details reasoning_text reasoning_opaque extra_content "
    "signature thinking_blocks"
).split()
# Gemini answers with an error when a call comes back without its thought signature. LiteLLM puts
# the signature into `provider_specific_fields`.
_SENT_BACK_OF_CALL = ("extra_content", "provider_specific_fields")
# What a message without content has instead, by the caller's word for it.
_NO_CONTENT: Mapping[str, JsonObject] = {
    "null": {"content": None},
    "empty": {"content": ""},
    "absent": {},
}


def to_request(message: Any, content_beside_calls: str) -> ChatCompletionAssistantMessageParam:
    """Return the fields of a message that a request accepts. Raises ValueError."""
    absent = _NO_CONTENT.get(content_beside_calls)
    if absent is None:
        raise ValueError(
            f'content_beside_calls is "null", "empty" or "absent", not {content_beside_calls!r}'
        )
    calls: JsonObject = {}
    kept = [_call(c) for c in message.tool_calls or () if _is_sent(c, may_be_cut=c._may_be_cut)]
    if kept:
        calls["tool_calls"] = kept
    old = message.function_call
    if old is not None and _is_sent(old, may_be_cut=may_be_cut(old._finish_reason, is_last=True)):
        calls["function_call"] = _texts(old, "name", "arguments")
    out: JsonObject = {"role": message.role or "assistant"}
    if message.content:
        out["content"] = copy_json(message.content)
    else:
        out |= absent if calls else _NO_CONTENT["empty"]
    if message.refusal is not None:
        out["refusal"] = message.refusal
    fields = to_dict(message)
    out |= {name: fields[name] for name in _SENT_BACK if fields.get(name) is not None}
    if audio_id := getattr(message.audio, "id", None):
        out["audio"] = {"id": audio_id}
    return cast("ChatCompletionAssistantMessageParam", out | calls)


def _is_sent(call: Any, *, may_be_cut: bool) -> bool:
    return bool(call.name) and (not may_be_cut or call._is_whole())


def _call(call: Any) -> JsonObject:
    is_function = call.function is not None and call.function.name
    kind, text = ("function", "arguments") if is_function else ("custom", "input")
    tool = _texts(getattr(call, kind), "name", text)
    out: JsonObject = {"id": call.id or "", "type": call.type or kind, kind: tool}
    sent = {name: call.extra.get(name) for name in _SENT_BACK_OF_CALL}
    return out | {name: copy_json(value) for name, value in sent.items() if value is not None}


def _texts(tool: object, *names: str) -> JsonObject:
    return {name: getattr(tool, name) or "" for name in names}


def without_empty_messages(
    completion: JsonObject, extras: Sequence[Mapping[str, object]]
) -> JsonObject:
    """Remove what only a chat completion has from a legacy one; a vendor's `message` stays."""
    if completion["object"] != "text_completion":
        return completion
    for choice, extra in zip(cast("list[Any]", completion["choices"]), extras, strict=True):
        if choice["message"] == {"content": None, "refusal": None}:
            del choice["message"]
            if "message" in extra:
                choice["message"] = copy_json(extra["message"])
            logprobs = choice["logprobs"] or {}
            for name in ("content", "refusal"):
                if name in logprobs and logprobs[name] is None:
                    del logprobs[name]
    return completion


def with_messages(completion: Mapping[str, object]) -> Mapping[str, object]:
    """Return a legacy completion with an empty message in each choice that has none."""
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    if not isinstance(choices, list) or completion.get("object") != "text_completion":
        return completion
    filled = [
        {"message": {}, **choice} if isinstance(choice, dict) else choice for choice in choices
    ]
    return {**completion, "choices": filled}


def text_of(content: str | tuple[object, ...] | list[object] | None) -> str | None:
    """Return a message's content as text; of parts, their texts joined."""
    if not isinstance(content, (tuple, list)):
        return content
    texts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def why_cut(finish_reason: str | None) -> str:
    """Return why JSON is cut off, if the answer's finish reason explains it."""
    is_cause = finish_reason in ("length", "content_filter")
    return f"cut off by the finish reason {finish_reason!r}: " if is_cause else ""


def may_be_cut(finish_reason: str | None, *, is_last: bool) -> bool:
    """Return whether a call whose arguments are not whole was cut off."""
    return not finish_reason or (finish_reason == "length" and is_last)


def fill(choice: Any, *, is_text: bool) -> None:
    """Set what follows from the schema and the finish reason, in a choice that was just built."""
    message, finish_reason = choice.message, choice.finish_reason
    is_empty = message == type(message)(role=message.role)
    if choice.text is not None and not is_empty:  # it repeats the message (Together)
        choice.__dict__.update(text=None, extra={"text": choice.text, **choice.extra})
    message.__dict__["role"] = message.role or (None if is_text and is_empty else "assistant")
    calls = list(message.tool_calls or ())
    for call in calls:
        tool = "custom" if call.function is None else "function"
        if not call.type and getattr(call, tool) is not None:
            call.__dict__["type"] = tool
        call.__dict__["_may_be_cut"] = may_be_cut(finish_reason, is_last=call is calls[-1])
    for each in (message, message.function_call, *(call.function for call in calls)):
        if each is not None:
            each.__dict__["_finish_reason"] = finish_reason


def to_openai(completion: JsonObject) -> ChatCompletion:
    """Return a completion as an object of the openai package. Raises ValueError, ImportError."""
    try:
        from openai.types.chat import ChatCompletion as Theirs  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "to_openai() makes an object of the openai package: pip install openai"
        ) from error
    return Theirs.model_validate(completion, strict=True)


def pydantic_schema(cls: Any) -> CoreSchema:
    """Return the schema of a class that is read from a dict and written as one."""
    from pydantic_core import core_schema  # noqa: PLC0415  # only pydantic asks

    as_dict = core_schema.dict_schema()
    return core_schema.no_info_plain_validator_function(
        lambda value: value if isinstance(value, cls) else cls.from_dict(value),
        json_schema_input_schema=as_dict,
        serialization=core_schema.plain_serializer_function_ser_schema(
            cls.to_dict, return_schema=as_dict
        ),
    )
