"""Hypothesis strategies: streams as servers send them, and as they should not."""

from __future__ import annotations

import json

from hypothesis import strategies as st

JsonObject = dict[str, object]

# Words that occur again make repeated names, ids and labels likely.
WORDS = st.sampled_from(
    ["", "a", "b", "get", "get_weather", "stop", "é", "日本", "😀", '"\\', "\n"]
)
TEXTS = st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
NUMBERS = st.one_of(st.integers(-3, 300), st.floats(-5, 5, allow_nan=False), st.booleans())
SCALARS = st.one_of(st.none(), TEXTS, NUMBERS)
INDICES = st.sampled_from([0, 1, 2, 7, 10**9])
_PIECES = ["", "{", "}", "{}", '{"a":', "1}", '"x"', "[1", "]", "\\", " "]
ARGUMENTS = st.sampled_from([*_PIECES, '{"a":1}', '{ "a": 1 }', '{"a":true}', "null", "12"])

JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(WORDS, st.just("index"), st.just("text")), inner, max_size=3),
    ),
    max_leaves=6,
)


def objects(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[JsonObject]:
    """Draw objects with any of the fields, in any order."""
    return (
        st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4)
        .flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
        .map(dict)
    )


def _or_null(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(strategy, strategy, st.none())


FUNCTIONS = objects(name=_or_null(WORDS), arguments=_or_null(ARGUMENTS), vendor=JSON)
FRAGMENTS = objects(
    index=_or_null(st.sampled_from([0, 0, 1, 2, "0"])),
    id=_or_null(st.sampled_from(["", "call_a", "call_b", "call_c"])),
    type=_or_null(st.sampled_from(["function", "custom"])),
    function=_or_null(FUNCTIONS),
    custom=_or_null(objects(name=WORDS, input=TEXTS)),
    extra_content=JSON,
)
# Now and then with a null among them, or a single one that is not in a list.
CALLS = st.one_of(st.lists(_or_null(FRAGMENTS), max_size=3), st.lists(FRAGMENTS), FRAGMENTS)
# An error, or more often something that is not one, because an error ends the stream.
ERRORS: st.SearchStrategy[object] = st.one_of(
    st.sampled_from([None, None, False, "", 0, "no", 502]), st.builds(dict, code=WORDS)
)
TOKENS = objects(
    token=TEXTS,
    logprob=st.floats(-20, 0),
    bytes=_or_null(st.lists(st.integers(0, 255), max_size=3)),
    top_logprobs=st.lists(objects(token=TEXTS, logprob=st.floats(-9, 0)), max_size=2),
    vendor=JSON,
)
LOGPROBS = objects(
    content=_or_null(st.lists(TOKENS, max_size=2)),
    refusal=_or_null(st.lists(TOKENS, max_size=2)),
    reasoning_content=st.lists(JSON, max_size=2),
    vendor=JSON,
)
_TEXT_PARTS: st.SearchStrategy[JsonObject] = st.builds(dict, type=st.just("text"), text=TEXTS)
PARTS = st.lists(
    st.one_of(
        _TEXT_PARTS,
        st.builds(
            dict,
            type=st.just("thinking"),
            thinking=st.tuples(_TEXT_PARTS).map(list),
            closed=st.booleans(),
        ),
        # Made anew each time: a test spoils what it was given.
        st.builds(lambda: {"type": "image_url", "image_url": {"url": "data:"}}),
    ),
    max_size=3,
)
DELTAS = objects(
    role=_or_null(st.sampled_from(["assistant", "tool", ""])),
    content=st.one_of(_or_null(TEXTS), PARTS),
    refusal=_or_null(TEXTS),
    reasoning=_or_null(TEXTS),
    reasoning_content=_or_null(TEXTS),
    tool_calls=_or_null(CALLS),
    function_call=_or_null(FUNCTIONS),
    audio=objects(
        id=WORDS,
        transcript=TEXTS,
        data=st.sampled_from(["", "AA==", "AAE=", "AAEC", "no base64"]),
        expires_at=st.integers(0, 9),
    ),
    reasoning_details=st.lists(
        objects(
            index=st.integers(0, 1),
            type=_or_null(st.sampled_from(["reasoning.text", "reasoning.summary", ""])),
            text=TEXTS,
            signature=TEXTS,
            x=JSON,
        ),
        max_size=2,
    ),
    thinking_blocks=st.lists(
        objects(
            type=st.sampled_from(["thinking", "thinking", "redacted_thinking"]),
            thinking=_or_null(TEXTS),
            signature=_or_null(WORDS),
            x=JSON,
        ),
        max_size=2,
    ),
    provider_specific_fields=objects(citation=JSON, text=TEXTS, x=JSON),
    annotations=st.lists(JSON, max_size=2),
    channel=TEXTS,
    vendor_text=TEXTS,
    vendor=JSON,
)
COUNTS = st.one_of(st.integers(0, 50), st.none())
USAGES = objects(
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    total_tokens=COUNTS,
    completion_tokens_details=_or_null(objects(reasoning_tokens=COUNTS, x=JSON)),
    prompt_tokens_details=_or_null(objects(cached_tokens=COUNTS)),
    cost=JSON,
)
CHOICES = st.builds(
    lambda index, fields: {**index, **fields},
    st.one_of(st.builds(dict, index=INDICES), st.builds(dict)),
    objects(
        delta=_or_null(DELTAS),
        finish_reason=_or_null(
            st.sampled_from(["stop", "length", "tool_calls", "stop", "", "error"])
        ),
        logprobs=_or_null(LOGPROBS),
        message=DELTAS,
        text=_or_null(TEXTS),
        error=ERRORS,
        usage=USAGES,
        content_filter_results=JSON,
        obfuscation=TEXTS,
    ),
)
CHUNKS = objects(
    id=_or_null(st.sampled_from(["", "chatcmpl-1", "chatcmpl-2"])),
    object=st.sampled_from(["chat.completion.chunk", "text_completion"]),
    created=_or_null(st.integers(0, 5)),
    model=_or_null(WORDS),
    choices=st.lists(_or_null(CHOICES), max_size=3),
    service_tier=_or_null(WORDS),
    system_fingerprint=_or_null(WORDS),
    usage=_or_null(USAGES),
    x_groq=objects(usage=USAGES, id=WORDS, error=ERRORS),
    citations=st.lists(JSON, max_size=2),
    vendor=JSON,
)
# Nearly all chunks bring choices; without this most drawn streams would be empty.
LIKELY_CHUNKS = st.builds(
    lambda chunk, choices: {**chunk, "choices": choices},
    CHUNKS,
    st.lists(CHOICES, min_size=1, max_size=2),
)
# Each made anew: a test spoils what it was given.
OTHER_APIS = st.sampled_from(
    ['{"type": "message_start"}', '{"type": "response.created"}', '{"candidates": []}']
).map(json.loads)

ODD_FIELDS = st.sampled_from(
    ["id", "created", "model", "choices", "usage", "service_tier", "error", "extra", "moderation"]
)
ODD_CHUNKS = st.one_of(
    st.dictionaries(ODD_FIELDS, JSON, max_size=3),
    st.builds(
        lambda fields: {"choices": [fields]},
        st.dictionaries(
            st.sampled_from(
                ["index", "delta", "finish_reason", "logprobs", "message", "usage", "text", "error"]
            ),
            st.one_of(JSON, st.dictionaries(st.sampled_from(["content", "tool_calls"]), JSON)),
            max_size=3,
        ),
    ),
    JSON,
    OTHER_APIS,
)

STREAMS: st.SearchStrategy[list[object]] = st.lists(st.one_of(LIKELY_CHUNKS, CHUNKS), max_size=6)
ODD_STREAMS: st.SearchStrategy[list[object]] = st.lists(
    st.one_of(LIKELY_CHUNKS, ODD_CHUNKS), max_size=5
)

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
_FIELDS = ["event: message", "event: odd", "retry: 10", "id: 7", "data:", "unknown"]
_COMMENTS = st.sampled_from([": ping", "data: : ping", "data: null", "{}", *_FIELDS])
_ENDS = ["data: [DONE]", 'data: "[DONE]"', "[DONE]", "event: odd\ndata: [DONE]"]


@st.composite
def bodies(draw: st.DrawFn, streams: st.SearchStrategy[list[object]] = STREAMS) -> bytes:
    """Draw a body: any line ends, comments between, events or JSON lines, `[DONE]` or none."""
    out = draw(st.sampled_from(["", "\ufeff"]))
    end = draw(LINE_ENDS)
    for chunk in draw(streams):
        for comment in draw(st.lists(_COMMENTS, max_size=1)):
            out += comment + end + draw(st.sampled_from(["", end]))
        indent = draw(st.sampled_from([None] * 9 + [1]))
        text = json.dumps(chunk, ensure_ascii=draw(st.booleans()), indent=indent)
        field = draw(st.sampled_from(["data: "] * 4 + ["data:", ""]))
        out += field + text.replace("\n", end + field) + end
        out += draw(st.sampled_from([end] * 9 + [""]))
    done = draw(st.sampled_from(_ENDS)).replace("\n", end)
    out += draw(st.sampled_from([done + end + end, "", done]))
    return out.encode()


def rendered(chunks: list[object]) -> bytes:
    """Render chunks as a body without `[DONE]`."""
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """Draw a way to cut bytes into pieces."""
    places = draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    return [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
