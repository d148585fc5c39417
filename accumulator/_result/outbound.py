"""A completion's dict in the forms that others take: the next request, openai's types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

__all__ = ["to_openai", "to_request"]

JsonObject = dict[str, object]

# DeepSeek and Moonshot want `reasoning_content` back, OpenRouter `reasoning` and
# `reasoning_details`, GitHub Copilot `reasoning_text` and `reasoning_opaque`, Gemini the signature
# in `extra_content`.
_SENT_BACK = (
    "reasoning reasoning_content reasoning_details reasoning_text reasoning_opaque extra_content "
    "signature"
).split()
# Gemini refuses a conversation whose calls have lost their thought signatures; LiteLLM hands them
# on in `provider_specific_fields`.
_SENT_BACK_OF_CALL = ("extra_content", "provider_specific_fields")


def to_request(message: JsonObject) -> JsonObject:
    """Give of a message what belongs into a request."""
    # A value of a wrong type, which the wire keeps at its place, is nothing that a request takes.
    content = message["content"] if isinstance(message["content"], (str, list)) else None
    out: JsonObject = {"role": _text(message, "role") or "assistant", "content": content}
    if isinstance(message["refusal"], str):
        out["refusal"] = message["refusal"]
    out |= {name: message[name] for name in _SENT_BACK if message.get(name) is not None}
    blocks = message.get("thinking_blocks")
    if isinstance(blocks, list):
        out["thinking_blocks"] = _whole_blocks(blocks)
    audio = message.get("audio")
    if isinstance(audio, dict) and _text(audio, "id"):
        out["audio"] = {"id": audio["id"]}
    calls = [_call(call) for call in _objects(message.get("tool_calls"))]
    if calls:
        out["tool_calls"] = calls
    function_call = message.get("function_call")
    if isinstance(function_call, dict):
        out["function_call"] = _texts(function_call, "name", "arguments")
    return out


def _call(call: Mapping[str, object]) -> JsonObject:
    out: JsonObject = {"id": _text(call, "id")}
    for kind, text in (("custom", "input"), ("function", "arguments")):
        named = call.get(kind)
        if isinstance(named, dict):
            out["type"] = _text(call, "type") or kind
            out[kind] = _texts(named, "name", text)
    if "type" not in out:
        out |= {"type": "function", "function": _texts({}, "name", "arguments")}
    return out | {name: call[name] for name in _SENT_BACK_OF_CALL if call.get(name) is not None}


def _whole_blocks(fragments: Iterable[object]) -> list[object]:
    """Join the fragments of thinking blocks, as LiteLLM streams Anthropic's: text upon text, and
    the signature, which Anthropic checks against the text, at the end.
    """
    blocks: list[object] = []
    open_block: JsonObject | None = None
    for fragment in fragments:
        if not isinstance(fragment, dict) or fragment.get("type") != "thinking":
            blocks.append(fragment)
            open_block = None
            continue
        if open_block is None:
            open_block = {"type": "thinking", "thinking": ""}
            blocks.append(open_block)
        thinking = _text(open_block, "thinking") + _text(fragment, "thinking")
        open_block |= {name: value for name, value in fragment.items() if value is not None}
        open_block["thinking"] = thinking
        if fragment.get("signature"):
            open_block = None
    return blocks


def to_openai(completion: JsonObject) -> ChatCompletion:
    """Validate a completion as openai's. Raises ValueError, ImportError."""
    try:
        from openai.types.chat import ChatCompletion as Theirs  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "to_openai() makes an object of the openai package: pip install openai"
        ) from error
    for choice in _objects(completion["choices"]):
        message = cast("JsonObject", choice["message"])
        message.setdefault("role", "assistant")
        for call in _objects(message.get("tool_calls")):
            for kind in ("function", "custom"):
                if isinstance(call.get(kind), dict):
                    call.setdefault("type", kind)
    return Theirs.model_validate(completion, strict=True)


def _objects(value: object) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _texts(fields: Mapping[str, object], *names: str) -> JsonObject:
    return {name: _text(fields, name) for name in names}
