"""The inverse of a stream: chunks that add up to a completion, and the body that carries them.

For caches and test servers that have a whole completion and must answer a `stream: true` request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import attrs

from ._decode.objects import LastChunk
from ._result.convert import JsonObject, names_of, objects_of, to_dict
from ._streaming.chunk_texts import SseBody
from .completion import ChatCompletion, Choice, ChoiceLogprobs, Message, TokenLogprob, ToolCall
from .limits import DEFAULT_LIMITS
from .partial import is_complete
from .rules import DEFAULT_RULES, Level

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion as OpenAIChatCompletion

__all__ = ["split", "sse"]

Cut = Callable[[str], list[str]]
S = TypeVar("S", str, list[Any])

# A word with the blanks before it; in texts without blanks (Japanese, compact JSON), 24 characters.
_WORD = r"\s*\S{1,24}(?:\s+\Z)?|\s+"

# The fields of a message that come after its reasoning and what vendors add.
_ANSWER = {*names_of(Message)} - {"reasoning", "reasoning_content"}


def split(
    completion: ChatCompletion | OpenAIChatCompletion, *, by: Literal["words"] | int = "words"
) -> Iterator[JsonObject]:
    """Yield `chat.completion.chunk` dicts that add up to the completion again (SPEC law 5). It may
    also be openai's.

    Texts are cut at words, or into pieces of `by` characters; if logprobs give a text's tokens, it
    is cut at those. Audio and content parts are not cut. Choices take turns; usage comes last. If a
    choice has no finish reason, or there is no choice, the last chunk ends the stream when this
    package is fed with it, as `[DONE]` does; to everybody else it is a chunk like the others.

    The law holds for every completion of a stream that was read under the default rules, with one
    exception: tool calls come out as one if they share an id and one of them has no name, and also
    if two of those that share an id, or have neither id nor name, have arguments that are not
    whole. A completion that was never streamed, or was built by hand, may contain what no chunk can
    express:

    - a null in `extra` and an empty `tool_calls` or `finish_reason` count as absent;
    - neighbouring text parts become one, and so do entries of a message's list with the same
      `index` and choices with the same index; choices are sorted by index;
    - `object` is always "chat.completion"; `obfuscation` is dropped, an `error` is a server error;
    - usage counts are made to agree (SPEC section 5), `audio.data` that is not base64 moves to
      `extra`, and a value in `extra` that fits the field of the same name moves to that field.

    Raises ValueError for a `by` that is neither "words" nor a positive integer, and TypeError for
    anything but a completion.

        client_stream = sse(split(cached))          # the body of a streamed answer
        assert accumulate(split(cached)) == cached
    """
    dump = getattr(completion, "model_dump", None)
    if dump is not None:
        completion = ChatCompletion.from_dict(dump())
    elif not isinstance(completion, ChatCompletion):
        raise TypeError(
            "split takes a ChatCompletion, ours or openai's; "
            "ChatCompletion.from_dict makes one from a dict"
        )
    if by == "words":
        return _chunks(completion, _words)
    if type(by) is not int or by < 1:
        raise ValueError(f'by is "words" or a positive number of characters, not {by!r}')
    return _chunks(completion, partial(_slices, size=by))


def sse(chunks: Iterable[Mapping[str, object]]) -> SseBody:
    """Render chunks as a `text/event-stream` body: one event per piece, `[DONE]` last. The result
    is both an iterator and an async iterator. Raises TypeError for a completion.
    """
    if isinstance(chunks, (ChatCompletion, Mapping)) or hasattr(chunks, "model_dump"):
        raise TypeError("sse takes chunks; split makes them from a completion")
    return SseBody(chunks)


def _chunks(completion: ChatCompletion, cut: Cut) -> Iterator[JsonObject]:
    last, *ends = objects_of(attrs.evolve(completion, choices=()), ["error"])
    plain = [name for name in names_of(ChatCompletion) if isinstance(last.get(name), (str, int))]
    envelope = {name: last.pop(name) for name in plain}
    if completion.object != "text_completion":
        envelope["object"] = "chat.completion.chunk"
    streams = [_choice(choice, cut) for choice in completion.choices]
    for choices in filter(None, chain.from_iterable(zip_longest(*streams))):
        yield {**envelope, "choices": choices}
    is_open = not streams or any(not choice.finish_reason for choice in completion.choices)
    del last["choices"]
    if last or is_open:
        ends.append(last)
    ends.sort(key=lambda fields: "error" in fields)  # nothing after an error is read
    for place, fields in enumerate(ends, start=1):
        chunk = {**envelope, "choices": [], **fields}
        yield LastChunk(chunk) if is_open and place == len(ends) else chunk


def _choice(choice: Choice, cut: Cut) -> Iterator[list[JsonObject]]:
    """Yield the `choices` of each chunk of a choice."""
    index = choice.index
    last, *alone = objects_of(attrs.evolve(choice, logprobs=None, text=None), ["delta", "usage"])
    message = dict.fromkeys(names_of(Message)) | cast("JsonObject", last.pop("message"))
    message["tool_calls"] = choice.message.tool_calls
    for fields in _steps(choice, message, cut):
        yield [{"index": index, "delta": {}, "finish_reason": None, **fields}]
    for piece in [] if choice.text is None else cut(choice.text):
        yield [{"index": index, "text": piece, "finish_reason": None}]
    for fields in alone:
        if isinstance(fields.get("message"), dict):
            yield [{"index": index, "delta": fields["message"]}]
        elif "index" not in fields:
            # Beside a delta, a `message` would be read as repeating it.
            delta: JsonObject = {} if "message" in fields else {"delta": {}}
            yield [{"index": index, **delta, **fields}]
        elif index < (DEFAULT_LIMITS.choices or 0):
            # A choice whose index cannot be read goes by its place in the list.
            yield [*[{"index": index, "delta": {}}] * index, fields]
    yield [{"delta": {}, "finish_reason": None, **last}]


def _steps(choice: Choice, message: JsonObject, cut: Cut) -> Iterator[JsonObject]:
    """Yield what each chunk adds to a choice and its message."""
    if choice.message != Message() or choice.text is None:
        # OpenAI's first delta has a `content` even if none follows.
        content = "" if isinstance(choice.message.content, str) else None
        yield {"delta": {"role": message.pop("role", None), "content": content}}
    logprobs = choice.logprobs or ChoiceLogprobs()
    tokens = {"content": logprobs.content, "refusal": logprobs.refusal}
    for name in sorted(message, key=lambda name: name in _ANSWER):
        yield from _with_tokens(name, [*_cut_field(name, message[name], cut)], tokens.get(name))
    if choice.logprobs is not None:
        for fields in objects_of(attrs.evolve(logprobs, content=None, refusal=None)):
            if fields or not (logprobs.content or logprobs.refusal):
                yield {"logprobs": fields}


def _words(text: str) -> list[str]:
    return re.findall(_WORD, text) or [text]


def _slices(whole: S, size: int) -> list[S]:
    return [whole[i : i + size] for i in range(0, len(whole), size)] or [whole]


def _with_tokens(
    name: str, pieces: Sequence[object], tokens: Sequence[TokenLogprob] | None
) -> Iterator[JsonObject]:
    """Yield a field's pieces with their logprobs. Tokens that spell the text are the pieces;
    others are divided among them.
    """
    runs: list[list[JsonObject]] = []
    if tokens is not None:
        texts = [token.token or "" for token in tokens]
        is_text = any(texts) and "".join(texts) == "".join(p for p in pieces if isinstance(p, str))
        pieces = texts if is_text else pieces
        size = 1 if is_text else -(-len(tokens) // (len(pieces) or 1)) or 1
        runs = _slices([*map(_token, tokens)], size)
    for piece, run in zip_longest(pieces, runs):
        delta: JsonObject = {} if piece is None else {"delta": {name: piece}}
        yield delta if run is None else {**delta, "logprobs": {name: run}}


def _token(token: TokenLogprob) -> JsonObject:
    out = to_dict(token)
    # Entries that are not tokens are in `extra`, under the name of the list that they came in.
    others = token.extra.get("top_logprobs")
    if token.top_logprobs is not None and isinstance(others, list):
        out["top_logprobs"] = [*map(to_dict, token.top_logprobs), *others]
    return out


def _cut_field(name: str, value: Any, cut: Cut) -> Iterable[object]:
    """Return what merges to a field of a delta, such as the pieces of a text."""
    if value is None:
        return []
    if name == "tool_calls":
        return _calls(value, cut)
    if name == "audio":
        return _opened(value, "transcript", cut)
    if name == "function_call":
        return _opened(value, "arguments", partial(_cut_json, cut))
    level = DEFAULT_RULES.levels["delta"]
    policy = DEFAULT_RULES.rows.get(f"delta.{name}") or level.kinds.get(type(value))
    if policy == "concat" and isinstance(value, str):
        return cut(value)
    is_joined = name == "content" or policy in ("extend", "by_index", "by_type", "blocks")
    if is_joined and isinstance(value, list):
        return _slices(value, 1)
    if policy == "merge" and isinstance(value, dict):
        return _collected(level.below(name), value)
    return [value]


def _collected(level: Level, value: dict[str, Any]) -> list[JsonObject]:
    """Return the objects that merge to one: each collected value has one of its own."""
    names = [n for n in value if level.names.get(n) == "collect" and isinstance(value[n], list)]
    rest = {n: item for n, item in value.items() if n not in names}
    return [rest, *({n: entry} for n in names for entry in value[n])]


def _opened(value: JsonObject, name: str, cut: Cut) -> Iterator[JsonObject]:
    """Yield the objects that merge to one: the text to cut comes last, in pieces."""
    yield {key: item for key, item in value.items() if key != name}
    if name in value:
        for piece in cut(str(value[name])):
            yield {name: piece}


def _cut_json(cut: Cut, text: str) -> list[str]:
    """Cut arguments that are one JSON value; in others a piece could pass for a repetition."""
    return cut(text) if is_complete(text) else [text]


def _calls(calls: Sequence[ToolCall], cut: Cut) -> Iterator[list[JsonObject]]:
    """Yield the fragments of all calls in lists, each with the index of its call.

    By SPEC section 4, an entry with neither id nor name, or with a name and an id that is known,
    opens a call only if the call before it is whole. So these go first, and uncut.
    """
    shared = Counter(call.id or index for index, call in enumerate(calls))
    turns = sorted(
        enumerate(calls), key=lambda at: (bool(at[1].name), bool(at[1].id), not at[1]._is_whole())
    )
    for index, call in turns:
        opening, *alone = objects_of(call, ["index"])
        pieces: list[JsonObject] = []
        for kind, name in (("function", "arguments"), ("custom", "input")):
            text = getattr(getattr(call, kind), name, None)
            if text is not None and shared[call.id or index] < 2:
                opening[kind] = {**cast("JsonObject", opening[kind]), name: ""}
                cut_text = cut if kind == "custom" else partial(_cut_json, cut)
                pieces.extend({kind: {name: piece}} for piece in cut_text(text) if piece)
        # An index that cannot be read names no call; its fragment goes to the call of the last one.
        for fields in (opening, *alone, *pieces):
            yield [{"index": index, **fields}]
