"""Mutate streams at the level of their chunks, which byte flips hardly ever leave readable."""

from __future__ import annotations

import json
import re
from random import Random

Container = dict[str, object] | list[object]

_KEYS = (
    "id object created model choices service_tier system_fingerprint usage moderation error "
    "index delta message finish_reason logprobs obfuscation "
    "role content refusal reasoning reasoning_content tool_calls function_call audio annotations "
    "images reasoning_details executed_tools channel type name format status signature "
    "function custom arguments input extra_content text summary thinking transcript data "
    "expires_at token logprob bytes top_logprobs prompt_tokens completion_tokens total_tokens "
    "prompt_tokens_details completion_tokens_details cached_tokens x_groq vendor"
).split()

# As JSON text, because no JSON decoder returns some of them.
_VALUES = (
    "null true false 0 1 -1 2 7 1000000000 9223372036854775808 18446744073709551616 1.0 1.5 -0.0 "
    '1e999 NaN "" "0" "1.0" "a" "call_a" "call_b" "get" "get_weather" "stop" "assistant" "text" '
    '"thinking" "function" "custom" "[DONE]" "{" "}" "{}" "1" "\\"x\\"" "\\ud83d" "\\ude00" '
    '"\\ud83d\\ude00" "\\ud83d\\ude00\\ud83d" "AA==" "AAE" "\\u0000" "\u00e9" "\U0001f600" '
    '[] {} [{}] [[]] [null] [0] {"index":0} {"index":0,"text":"a"} {"text":"a"} '
    '{"type":"text","text":"a"} {"type":"thinking","thinking":[{"type":"text","text":"a"}]} '
    '[{"index":0,"id":"call_a","function":{"name":"get","arguments":"{}"}}] '
    '[{"index":0,"id":"call_b","function":{"name":"get","arguments":""}}] '
    '[{"function":{"arguments":"{}"}}] [{"custom":{"name":"get","input":"a"}}] '
    '{"content":"a"} [{"delta":{"content":"a"}}] [{"index":1,"delta":{"content":"a"}}]'
).split()

_LINES = (
    b": ping",
    b"event: error",
    b"event: message",
    b"retry: 10",
    b"data",
    b"data:",
    b"data: [DONE]",
    b'error: {"message":"busy"}',
    b"",
    b"\xff",
)

# These replace a value's own bytes and nothing else, to see whether a template takes too much.
_SPELLINGS = (
    b"0 1 01 -1 1.0 7 null true \xff \xc3 \xed\xa0\xbd \x00 x\\ \\ \\\\ \\u00e9 \\ud83d \\ude00 "
    b"\\x \\u12 "
    b'" a","b ,"y ],[0,"y }]],["y "]," "},{" ","role":"x ","content":"x "}},{"index":1,"delta":{ '
    b'[] [{}] [{"token":"a [{"token":"a"}] [{"token":"a"},{"token":"b"}]'
).split(b" ")

_VALUE = re.compile(rb'(?<=":)("(?:[^"\\]|\\.)*"|-?[0-9.]+|\[[^]]*\])|(?<=": )("(?:[^"\\]|\\.)*")')


def mutate(data: bytes, random: Random) -> bytes:
    """Return other bytes: with whole events or lines moved, or the JSON of one changed."""
    separator = b"\n\n" if b"\n\n" in data and random.random() < 0.8 else b"\n"
    pieces = data.split(separator)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(pieces)) if pieces else 0
        match random.randrange(12):
            case 0 if pieces:
                pieces.insert(place, random.choice(pieces))
            case 1 if pieces:
                pieces.pop(place)
            case 2 if pieces:
                pieces.insert(place, pieces.pop(random.randrange(len(pieces))))
            case 3:
                pieces.insert(place, random.choice(_LINES))
            case 4 if pieces:
                pieces[place] = pieces[place][: random.randrange(len(pieces[place]) + 1)]
            case 5 | 6 if pieces:  # repeat an event with another value
                pieces[place + 1 : place + 1] = [
                    _respelt(pieces[place], random) for _ in range(random.randrange(1, 5))
                ]
            case 7 if pieces:
                pieces[place] = _respelt(pieces[place], random)
            case _ if pieces:
                pieces[place] = _mutate_chunk(pieces[place], random)
    return separator.join(pieces)


def _respelt(event: bytes, random: Random) -> bytes:
    """Replace the bytes of one value, inside its quotes if it has any."""
    values = list(_VALUE.finditer(event))
    if not values:
        return event
    start, end = random.choice(values[-6:]).span()
    quoted = event[start:end].startswith(b'"')
    if quoted:
        start, end = start + 1, end - 1
    return event[:start] + random.choice(_SPELLINGS) + event[end:]


def _mutate_chunk(line: bytes, random: Random) -> bytes:
    start = line.find(b"{")
    try:
        chunk = json.loads(line[start:])
    except (ValueError, RecursionError):
        return line
    if start < 0 or not isinstance(chunk, dict):
        return line
    containers: list[Container] = []
    _collect(chunk, containers)
    into = random.choice(containers)
    value: object = json.loads(random.choice(_VALUES))
    if random.random() < 0.2:
        value = json.loads(json.dumps(random.choice(containers)))
    if isinstance(into, dict):
        key = random.choice(list(into) or _KEYS) if random.random() < 0.6 else random.choice(_KEYS)
        if key in into and random.random() < 0.2:
            del into[key]
        else:
            into[key] = value
    elif into and random.random() < 0.3:
        into.pop(random.randrange(len(into)))
    elif into and random.random() < 0.5:
        into[random.randrange(len(into))] = value
    else:
        into.insert(random.randrange(len(into) + 1), value)
    return line[:start] + json.dumps(chunk, ensure_ascii=random.random() < 0.9).encode(
        "utf-8", "surrogatepass"
    )


def _collect(value: object, into: list[Container]) -> None:
    if isinstance(value, (dict, list)):
        into.append(value)
        for item in value.values() if isinstance(value, dict) else value:
            _collect(item, into)
