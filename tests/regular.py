"""Streams whose chunks repeat, and events that do not belong in them."""

from __future__ import annotations

import json
from collections.abc import Callable


def event(text: str | bytes) -> bytes:
    return b"data: " + (text.encode() if isinstance(text, str) else text) + b"\n\n"


ENVELOPE = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o",'
    '"service_tier":"default","system_fingerprint":"fp_1","choices":[%s],"usage":null%s}'
)


def delta_chunk(fields: str, index: int = 0, padding: str | None = None) -> str:
    choice = f'{{"index":{index},"delta":{{{fields}}},"logprobs":null,"finish_reason":null}}'
    return ENVELOPE % (choice, "" if padding is None else f',"obfuscation":"{padding}"')


def text_chunk(text: str, index: int = 0, padding: str | None = None) -> str:
    return delta_chunk(f'"content":{json.dumps(text)}', index, padding)


def call_chunk(arguments: str, call: int, choice: int = 0, beside: str = "") -> str:
    fragment = f'{{"index":{call},"function":{{"arguments":{json.dumps(arguments)}}}}}'
    return delta_chunk(f'{beside}"tool_calls":[{fragment}]', choice)


def call_start(call: int, choice: int = 0, beside: str = "", id: int | None = None) -> str:
    function = '"function":{"name":"f","arguments":""}'
    fragment = (
        f'{{"index":{call},"id":"call_{call if id is None else id}","type":"function",{function}}}'
    )
    return delta_chunk(f'{beside}"tool_calls":[{fragment}]', choice)


def token_chunk(text: str, logprob: float, refusal: str = "null") -> str:
    token = json.dumps({"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []})
    logprobs = f'"logprobs":{{"content":[{token}],"refusal":{refusal}}}'
    return text_chunk(text).replace('"logprobs":null', logprobs)


def with_usage(chunk: str, completion: int, total: int | None = None, reasoning: int = 0) -> str:
    counts: dict[str, object] = {"prompt_tokens": 9, "completion_tokens": completion}
    if total is not None:
        counts["total_tokens"] = total
    counts["completion_tokens_details"] = {"reasoning_tokens": reasoning, "audio_tokens": 0}
    return chunk.replace('"usage":null', f'"usage":{json.dumps(counts)}')


def with_vendor(chunk: str, value: object, *, name: str = "x_vendor", first: bool = False) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if first:
        return f'{{"{name}":{text},{chunk[1:]}'
    return f'{chunk[:-1]},"{name}":{text}}}'


def with_message(message: str) -> str:
    return text_chunk("m").replace('"delta":', f'"message":{message},"delta":')


def before_logprobs(chunk: str, fields: str) -> str:
    return chunk.replace('"logprobs"', f'{fields},"logprobs"')


def in_choice(chunk: str, fields: str) -> str:
    return chunk.replace("null}]", f"null,{fields}}}]")


def created(chunk: str, second: object) -> str:
    return chunk.replace("1760000000", f"{second}")


def part_chunk(part: str) -> str:
    return delta_chunk(f'"content":[{part}]')


def thinking(text: str, more: str = "") -> str:
    nested = f'[{{"type":"text","text":{json.dumps(text)}}}]'
    return part_chunk(f'{{"type":"thinking","thinking":{nested}{more}}}')


def detailed(text: str, entry: str, padding: str | None = None) -> str:
    written = json.dumps(text)
    details = f'"reasoning":{written},"reasoning_details":[{entry % written}]'
    return delta_chunk(f'"content":"",{details}', padding=padding)


# The chunks of each stream: those of a list, or sixty that a function makes.
Streams = dict[str, list[str] | Callable[[int], str]]

# Of a delta, as Mistral and others send it.
CONTENTS = [
    '[{"type":"thinking","thinking":[{"type":"text","text":"t"}]}]',
    '[{"type":"text","text":"u"},{"type":"text","text":"v"}]',
    *('"w"', '["x",{"type":"image_url","image_url":"y"},7,null]', "[]", "null"),
    "[" * 40 + "]" * 40,
]


# Streams that a template fits, of every kind, so that the shortcut is really taken.
FITTING: Streams = {
    "text": lambda i: text_chunk(f"word{i} "),
    "text with escapes": lambda i: text_chunk('"é😀\\\n'[i % 5] * 3),
    "padding": lambda i: text_chunk("a", padding="x" * (i % 7)),
    "padding before the text":
        lambda i: text_chunk(f"w{i}").replace('{"id"', f'{{"obfuscation":"{"x" * (i % 7)}","id"'),
    "an empty text beside another": lambda i: delta_chunk(f'"content":"","reasoning":"r{i}"'),
    "an empty text beside arguments": [
        call_start(0, beside='"content":"",'),
        *(call_chunk(f"{i}", 0, beside='"content":"",') for i in range(59)),
    ],
    "a text that comes in two fields":
        lambda i: delta_chunk(f'"reasoning_content":"r{i}","reasoning":"{"é" * (i % 3)}\\n"'),
    "the same text in two fields":
        lambda i: delta_chunk('"content":"word","reasoning":"word"', padding="p" * (i % 5)),
    "one choice that is not the first": lambda i: text_chunk(f"w{i}", index=2),
    "choices in turn": lambda i: text_chunk(f"w{i}", index=i % 4),
    "calls one after another": [
        chunk
        for call in range(3)
        for chunk in [call_start(call), *(call_chunk(f'{{"{i}', call) for i in range(20))]
    ],
    "calls in turn": [*map(call_start, range(3)), *(call_chunk(f"{i}", i % 3) for i in range(60))],
    "logprobs": lambda i: token_chunk(f"t{i}", -i / 8),
    "usage": [with_usage(text_chunk(f"u{i}"), i, i + 9) for i in range(1, 61)],
    "usage that shrinks": lambda i: with_usage(text_chunk("u"), 500 - i, 900 - i % 7),
    "vendor": lambda i: with_vendor(text_chunk(f"v{i}"), {"seq": i, "region": "eu"}),
    "vendor first": lambda i: with_vendor(text_chunk(f"v{i}"), i, first=True),
    "numbers of every kind": lambda i: with_vendor(
        text_chunk("v"), {"at": [5, -0.5, 1e300, 2**70, -(10**15), 0][i % 6]}
    ),
    "a number of a choice, and a list of numbers":
        lambda i: in_choice(text_chunk(f"w{i}"), f'"x_at":{i / 8},"ids":[{i * 7919 % 97}]'),
    "a list of a number that is always the same":
        lambda i: in_choice(text_chunk(f"w{i}"), '"ids":[4]'),
    "lists of several numbers": lambda i: in_choice(text_chunk("w"), f'"ids":[{i},{i % 3},4]'),
    "a number in an object of a delta": lambda i: delta_chunk(
        f'"content":"w{i}","x_meta":{{"at":{{"took":{i / 4}}},"name":"n"}}'
    ),
    "a string of an object":
        lambda i: with_vendor(text_chunk(f"w{i}"), {"id": f"é{i // 2}\n" * (i % 5), "n": i}),
    "a string of a choice, and one in an object of a delta": lambda i: in_choice(
        delta_chunk(f'"content":"w{i}","x_meta":{{"name":"{"n" * (i % 3)}"}}'), f'"x_at":"{i % 4}"'
    ),
    "arguments beside a text with NULs": [
        *(call_start(0), call_chunk('{"a":"', 0)),
        *(call_chunk(f"y{i}", 0, beside=f'"content":"\\u0000\\u0000{i}",') for i in range(60)),
    ],
    "arguments beside a counter": [
        call_start(0), *(with_vendor(call_chunk(f'{{"{i}"', 0), i) for i in range(59)),
    ],
    "arguments that are whole and go on, beside a counter": [
        call_start(0),
        *(
            with_vendor(call_chunk(text, 0), i)
            for i, text in enumerate(['{"a":"', *"x" * 48, '"}', *"  y  z  ~"])
        ),
    ],
    "parts that are numbers": lambda i: part_chunk(f"{i}"),
    "vendor of every kind": lambda i: with_vendor(
        text_chunk("v"),
        [i, -i / 4, "null", [i], {"a": {f"b{i % 3}": [i]}}, True, json.dumps("é\n" * i)][i % 7],
    ),
    "vendor's text": lambda i: with_vendor(text_chunk("v"), f'"t{i}"'),
    "vendor's object now and then the same":
        lambda i: with_vendor(text_chunk("v"), {"a": i // 20, "b": None}),
    "chunks that say when each was made":
        lambda i: created(text_chunk(f"w{i}"), 1760000000 + i // 7),
    "when each was made, after the text": lambda i: (
        f'{{"choices":[{{"finish_reason":null,"index":0,"delta":{{"content":"w{i}"}}}}],"created":'
        f'{1760000000 + i // 9},"id":"c","model":"m","object":"chat.completion.chunk"}}'
    ),
    "padding, and when each was made":
        lambda i: created(text_chunk(f"w{i}", padding="x" * (i % 7)), 1760000000 + i // 20),
    "reasoning that comes in details, too":
        lambda i: detailed(f"é{i}\n", '{"type":"reasoning.text","text":%s,"format":"f","index":0}'),
    "reasoning that comes in a summary, too, with padding":
        lambda i: detailed(f"s{i}", '{"index":0,"summary":%s}', padding="p" * (i % 5)),
    "an empty text beside details": lambda i: (
        detailed(f"d{i}", '{"text":%s,"index":3}').replace('"reasoning"', '"refusal"')
        if i > 0
        else detailed("", '{"text":%s,"index":3}')
    ),
    "thinking in parts": lambda i: thinking(f"é{i}\n"),
    "thinking in parts that say more": lambda i: thinking(f"t{i}", ',"closed":true,"x":null'),
    "thinking in parts without parts in them":
        lambda i: part_chunk(f'{{"type":"thinking","thinking":"t{i}"}}'),
    "text in parts": lambda i: part_chunk(f'{{"type":"text","text":"u{i}"}}'),
    "text of a legacy completion": lambda i: (
        f'{{"id":"cmpl-1","object":"text_completion","choices":[{{"index":0,"text":"é{i}\\n",'
        '"logprobs":null,"finish_reason":null}]}'
    ),
    "text behind parts": [thinking("t")] * 20 + [text_chunk(f"w{i}" * (i > 0)) for i in range(60)],
}  # fmt: skip
# Texts that come after something odd and twenty empty texts.
LATE = [text_chunk("")] * 20 + [text_chunk(f"w{i}") for i in range(40)]
# Not regular enough for the fast path, but alike.
ALIKE: Streams = {
    "an empty text beside that of each choice":
        lambda i: delta_chunk(f'"content":"","reasoning":"r{i}"', max(0, i - 20) % 3),
    "a text of each choice that comes in two fields":
        lambda i: delta_chunk(f'"reasoning":"r{i}","reasoning_content":"s{i}"', i % 2),
    "a text that comes in two fields, or in one": lambda i: delta_chunk(
        f'"reasoning":"r{i}"' + f',"reasoning_content":"{"s" * (i % 3)}"' * (i % 10 < 8)
    ),
    "vendor's null then deeper": lambda i: with_vendor(
        text_chunk("v"), "null" if i < 30 else "[" * (i - 25) + "]" * (i - 25)
    ),
    "vendor's error":
        lambda i: with_vendor(text_chunk("v"), i, name="error" if i > 30 else "x_vendor"),
    "fields of a delta beside the choices": [
        with_vendor(text_chunk("v"), [i], name=name)
        for name in ("annotations", "content", "message")
        for i in range(20)
    ],
    "vendor's moderation": lambda i: with_vendor(text_chunk("v"), {"s": i}, name="moderation"),
    "usage in another order": [
        with_usage(text_chunk("u"), i, i + 9, reasoning=i)
        if i % 2
        else with_usage(text_chunk("u"), i, reasoning=i).replace(
            '"audio_tokens": 0', f'"total_tokens": {i + 9}'
        )
        for i in range(1, 61)
    ],
    "times of every kind": lambda i: created(
        text_chunk(f"w{i}"), [1760000000 + i, 0, -5, 2.0, 10**20, 1.5, "null"][i % 7]
    ),
    "times with blanks, once a fraction":
        lambda i: created(text_chunk(f"w{i}"), f" {1760000000 + i}" + ".5" * (i == 50)),
    "times under a name with an escape, once a fraction": lambda i: created(
        text_chunk(f"w{i}"), f"{1760000000 + i}" + ".5" * (i == 50)
    ).replace("created", "cre\\u0061ted"),
    "a time that is at first none": lambda i: created(text_chunk(f"w{i}"), max(0, i - 30)),
    "a text that is sent twice": lambda i: delta_chunk(f'"content":"x","content":"w{i}"'),
    "padding in the choice": lambda i: text_chunk("a").replace(
        '"finish_reason"', f'"obfuscation":"{"x" * (i % 7)}","finish_reason"'
    ),
    "padding in the choice and beside it":
        lambda i: before_logprobs(text_chunk("a", padding="y"), '"obfuscation":"x"'),
    "a vendor's list between a text and its logprobs":
        lambda i: before_logprobs(token_chunk(f"t{i}", -i / 8), '"x_list":[1]'),
    "a vendor's list in logprobs, always the same":
        lambda i: token_chunk(f"t{i}", -0.5, refusal='null,"x_list":[1]'),
    "logprobs of a refusal beside those of the text":
        lambda i: token_chunk(f"t{i}", -0.5, refusal='[{"token":"r"}]'),
    "logprobs of nothing":
        lambda i: text_chunk(f"t{i}").replace('"logprobs":null', '"logprobs":{"content":null}'),
    "a vendor's text under the name of the text": lambda i: with_vendor(
        text_chunk(f"t{i}").replace('"content":', '"content" :'), '{"content":"x"}', first=True
    ),
    "a name written with an escape, and that name elsewhere": lambda i: with_vendor(
        text_chunk(f"t{i}").replace('"content"', '"conte\\u006et"'), {"content": "x"}, first=True
    ),
    "content in parts and in strings":
        [text_chunk("p")] * 6 + [delta_chunk(f'"content":{content}') for content in CONTENTS * 8],
    "annotations": lambda i: delta_chunk(
        f'"content":"a","annotations":{["null", "[]", f"[{i}]"][i % 3]}'
    ),
    "a message beside the delta": lambda i: with_message('{"content":"%s"}' % ("m" * i)),
    "a message in place of the delta": lambda i: with_message('{"content":"x"}').replace(
        '"delta":' if i % 20 == 19 else "none", '"x_delta":'
    ),
    "arguments in a choice that has no calls": [
        text_chunk("t", index=2),
        *(call_start(0, choice) for choice in range(2)),
        *(call_chunk(f"{i}", 0, choice=2 if i == 40 else i % 2) for i in range(60)),
    ],
    "arguments of a call that is a custom tool's": [
        *(call_start(call) for call in range(2)),
        call_start(2).replace('"function":{', '"custom":{').replace('"arguments"', '"input"'),
        *(call_chunk(f"{i}", 2 if i == 40 else i % 2) for i in range(60)),
    ],
    "arguments that were asked whether they are whole": [
        *(call_start(0), call_chunk('{"a":"' + "y" * 500, 0), call_start(0, id=7)),
        *(call_chunk(text, 0) for text in [*"x" * 40, '"}', *" " * 20]),
        *(call_start(0, id=8), *[call_chunk("{", 0)] * 9),
    ],
    "when each was made, after it was null": lambda i: created(
        text_chunk("w"), "null" if i < 7 else 1760000000 + i // 7
    ),
    "text behind parts and empty texts": [text_chunk("a"), part_chunk(""), *LATE],
    "text behind a part that is a number": [part_chunk("7"), *LATE],
    "text behind parts that have their text elsewhere":
        [part_chunk('{"type":"thinking","text":"t"}'), *LATE],
    "details without index": lambda i: detailed(f"d{i}", '{"text":%s}'),
    "details of two indices":
        lambda i: detailed("d", f'{{"text":%s,"index":{"01"[i % 20 > 15]}}}'),
    "details of two entries":
        lambda i: detailed("d", '{"text":%s,"index":0},{"summary":"e","index":1}'),
    "details that merge more than a text":
        lambda i: detailed(f"d{i}", '{"text":%s,"summary":"s","index":0}'),
    "details beside another of a vendor's":
        lambda i: detailed(f"d{i}", '{"text":%s,"index":0}],"x_list":[1'),
    "details whose index becomes a fraction":
        lambda i: detailed("d", f'{{"text":%s,"index":{0 if i < 10 else 0.0}}}'),
    "details beside two texts": lambda i: detailed(
        "d", '{"text":%s,"index":0}],"reasoning_content":["r"'
    ).replace('["r"]', '"r"'),
    "details whose text is null": lambda i: detailed(f"d{i}", '{"text":null,"index":0,"was":%s}'),
    "parts in turn":
        lambda i: thinking("t") if i % 8 < 4 else part_chunk('{"type":"text","text":"u"}'),
    "parts that merge more than a text":
        lambda i: part_chunk(f'{{"type":"text","text":"u{i}","summary":"s"}}'),
    "parts whose thinking is now a list, now a string": lambda i: (
        thinking("t") if i % 20 < 17 else part_chunk('{"type":"thinking","thinking":"s"}')
    ),
    "parts of an unknown type":
        lambda i: part_chunk(f'{{"type":"image_url","image_url":"u{i}"}}'),
    "parts of a type that is no name": lambda i: part_chunk(f'{{"type":"(","(":"u{i}"}}'),
    "parts beside another text":
        lambda i: thinking(f"t{i}").replace('"content"', '"reasoning":"r","content"'),
    "parts in which a text is sent twice":
        lambda i: part_chunk(f'{{"type":"text","text":"u","text":"v{i}"}}'),
}  # fmt: skip


def repeated(streams: Streams) -> dict[str, list[str]]:
    return {
        name: chunks if isinstance(chunks, list) else [*map(chunks, range(60))]
        for name, chunks in streams.items()
    }


REGULAR, IRREGULAR = repeated(FITTING), repeated(ALIKE)
STREAMS = REGULAR | IRREGULAR


def but(old: str, *news: str, of: str = text_chunk("a")) -> list[bytes]:
    """Return a chunk's event with something of it replaced by each of others."""
    return [event(of.replace(old, new)) for new in news]


JOINT = '"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"'
BEFORE, _, AFTER = text_chunk("a", padding="b").partition(JOINT)
CALL, PADDED = call_chunk("a", 0), text_chunk("a", padding="x")
VENDORS = with_vendor(text_chunk("a"), "?")
COUNTED = with_vendor(text_chunk("v"), '{"seq": ?, "region": "eu"}')
OPEN, PADDED_OPEN = (text_chunk("a", padding=p).replace('"a"', '"x\\"') for p in (None, "b"))
# What must not be taken, or taken for something else, in the middle of a regular stream.
ODD: list[bytes] = [
    *but('"a"', '"a\\x"', '"a\\"', '"a\x01"', '"\\ud83d"', '"\\ude00"', '"a","refusal":"b"'),
    *but('"a"', '"a","b"', "5", '"","content":"b"', '"'),
    event(text_chunk("a").encode().replace(b'"a"', b'"\xc3"')),
    *but('"index":0', '"index":1.0', '"index":7', '"index":-1'),
    *but('"finish_reason":null', '"finish_reason":"stop"'),
    *but("gpt-4o", "other"),
    *but("fp_1", "fp_2"),
    *but("chatcmpl-1", "chatcmpl-2"),
    *but("}],", '},{"index":1,"finish_reason":"stop"}],'),
    *but("1760000000", "1760000009", "176000000", "0760000000", "17600000.5"),
    *but("1760000000", "9" * 5000),  # more than CPython reads
    *but('"x"', '"x\\q"', '"x\x01"', '"x","obfuscation":"y"', of=PADDED),
    *but('"x"', '"\\u0041"', '"x","vendor":1', of=PADDED),
    *but('"obfuscation":"x"', '"usage":{"total_tokens":5}', of=PADDED),
    event(detailed("a", '{"type":"reasoning.text","text":%s,"format":"f","index":0}')),
    event(detailed("a", '{"type":"reasoning.text","text":%s,"format":"f","index":1}')),
    event(detailed("a", '{"text":%s,"index":0.0}')),
    event(thinking("a")),
    event(thinking("").replace('""', "null")),
    event(thinking("a", ',"x":"y"')),
    event(part_chunk('{"type":"text","text":"a"},{"type":"text","text":"b"}')),
    event(part_chunk('"a"')),
    *but('"arguments"', '"name":"g","arguments"', of=CALL),
    *but('"arguments":"a"', '"arguments":"\\q"', "", of=CALL),
    *but('"function":{"arguments"', '"custom":{"input"', of=CALL),
    *but('"index":0,"function"', '"index":9,"function"', '"function"', of=CALL),
    *but("?", "null", '"\\ud83d"', '"\\ude00"', "01", '1,"x_vendor":2', of=VENDORS),
    *but("?", "[" * 400 + "]" * 400, of=VENDORS),
    *but("?", "7\r", "7 ", '7, "seq": 8', "true", "1e400", "-7e0", of=COUNTED),
    event(with_vendor(text_chunk("a"), '"\xff"').encode("latin-1")),
    event(with_usage(text_chunk("a"), 5, 3).replace(": 5", ": 5.0")),
    event(ENVELOPE.replace("[%s]", "null") % ""),
    *map(event, ['{"error":{"message":"overloaded"}}', "[DONE]", "{"]),
    *(b": comment\n\n", b"event: error\ndata: {}\n\n", b"\n"),
    # Each is broken, but what is cut out of them would make complete strings if joined.
    event(OPEN) + event(text_chunk("a").replace('"a"', '","y"')),
    event(PADDED_OPEN) + event(text_chunk("a", padding="b").replace('"a"', '","y"')),
    event(PADDED_OPEN) + event(text_chunk("a", padding=',"y')),
    # What one has twice does not make up for what the other lacks.
    event(BEFORE + JOINT + AFTER.partition('"')[0] + JOINT + AFTER) + event(BEFORE + AFTER),
    event(text_chunk("a")).replace(b"data: ", b"data:"),
    event(text_chunk("a")).replace(b"\n", b"\r\n"),
    event(text_chunk("a"))[:-1],
]
