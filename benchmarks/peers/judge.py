"""Whether a peer's result is the right one, as far as its format has room for it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from cases import Case

Verdict = Literal["right", "lost", "wrong", "raises"]
VERDICTS: tuple[Verdict, ...] = ("right", "lost", "wrong", "raises")

Object = dict[str, Any]

ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
DETAILS = {
    "prompt_tokens_details": {"audio_tokens", "cached_tokens"},
    "completion_tokens_details": {
        "accepted_prediction_tokens", "audio_tokens", "reasoning_tokens",
        "rejected_prediction_tokens",
    },
}  # fmt: skip
# A call's id and type are made up by formats that cannot do without; only a server's count.
MADE_UP = ("role", "tool_calls.id", "tool_calls.type", "audio.id")
REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")

# Half of a surrogate pair without the other half; whether it is kept or replaced is one.
LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
MESSAGE: dict[str, type | tuple[type, ...]] = {
    "role": str,
    "content": (str, list),
    "refusal": str,
    "reasoning": str,
    "reasoning_content": str,
    "annotations": list,
}
KNOWN = {
    "completion": {*ENVELOPE, "object", "choices", "usage", "moderation"},
    "usage": {*COUNTS, *DETAILS},
    "choice": {"index", "message", "finish_reason", "logprobs"},
    "message": {*MESSAGE, "tool_calls", "function_call", "audio"},
    "logprobs": {"content", "refusal"},
    "audio": {"id", "data", "transcript", "expires_at"},
    "tool_call": {"id", "type", "function", "custom", "index"},
    "function": {"name", "arguments"},
    "function_call": {"name", "arguments"},
    "custom": {"name", "input"},
}  # fmt: skip


@dataclass(frozen=True)
class Room:
    """What a peer's result format has places for; nothing else is held against it."""

    # Names as in `Leaf.key`; a name stands for everything below it too, "extra" for all that the
    # API does not define.
    keys: frozenset[str]
    choices: Literal["all", "first"] = "all"
    # "text" joins the text parts of a list; "answer" has the refusal in the same place.
    content: Literal["any", "text", "answer"] = "any"
    # "one" files whichever reasoning field came in one place.
    reasoning: Literal["fields", "one"] = "fields"
    # "json" keeps arguments parsed, so their spelling is gone.
    arguments: Literal["text", "json"] = "text"

    def has(self, key: str) -> bool:
        """Tell whether the format has a place for what the key names."""
        parts = key.split(".")
        return any(".".join(parts[:n]) in self.keys for n in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Leaf:
    """One value of a completion, and the name that rooms know it by."""

    key: str
    value: Any


@dataclass(frozen=True)
class Difference:
    """Where a result is not what it should be."""

    path: str
    kind: Literal["lost", "wrong"]
    expected: Any
    got: Any


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons."""

    verdict: Verdict
    differences: list[Difference] = field(default_factory=list)
    error: str | None = None


def judge(case: Case, room: Room, answer: Object) -> Judgement:
    """Judge one answer of a peer: `{"result": …}` or `{"error": …}`."""
    if "error" in answer:
        error = str(answer["error"])
        return Judgement("right" if case.may_raise else "raises", error=error)
    result = answer["result"] if isinstance(answer["result"], dict) else {}
    differences = list(compare(case, room, result))
    if any(difference.kind == "wrong" for difference in differences):
        return Judgement("wrong", differences)
    return Judgement("lost" if differences else "right", differences)


def asked(case: Case, room: Room) -> int:
    """Count the values of a case that a peer is asked for."""
    leaves = leaves_of(case.completion, room).values()
    return sum(room.has(leaf.key) and pruned(leaf.value) is not None for leaf in leaves)


def compare(case: Case, room: Room, result: Object) -> Iterator[Difference]:
    """Yield every difference that the room lets count."""
    expected = leaves_of(case.completion, room)
    got = leaves_of(result, room)
    paths = [*expected, *(path for path in got if path not in expected)]
    for path in paths:
        leaf = expected.get(path) or got[path]
        wanted, given = pruned(value_at(expected, path)), pruned(value_at(got, path))
        pair = Pair(case, room, path, leaf.key, wanted, given)
        if room.has(leaf.key) and not same(pair):
            yield Difference(
                path, "lost" if is_lost(leaf.key, wanted, given) else "wrong", wanted, given
            )


def is_lost(key: str, wanted: Any, given: Any) -> bool:
    """Tell whether what is wanted just did not arrive."""
    if key == "finish_reason" and wanted not in (None, *REASONS):
        # Some make one of the API's reasons of a vendor's.
        return given is None or given in REASONS
    # A vendor's field that is garbled is a field that did not arrive.
    return given is None or key in ENVELOPE or key.startswith("extra")


def value_at(leaves: dict[str, Leaf], path: str) -> Any:
    """Give the value at a path, or None."""
    return leaves[path].value if path in leaves else None


@dataclass(frozen=True)
class Pair:
    """Two values of one place, and all that bears on whether they count as equal."""

    case: Case
    room: Room
    path: str
    key: str
    wanted: Any
    given: Any


def same(pair: Pair) -> bool:
    """Tell whether two values count as equal; every benefit of the doubt is given here."""
    case, room, path, key = pair.case, pair.room, pair.path, pair.key
    wanted, given = pair.wanted, pair.given
    if wanted == given:
        return True
    if key in ENVELOPE:
        # Which of several is a rule of ours; an invented one is as good as none.
        return not wanted or (given is not None and given in carried(case, key))
    if key.startswith("extra"):
        return wanted is None or within(wanted, given)
    if key in MADE_UP and wanted is None:
        return True
    if key.startswith("usage"):
        # Formats that count in plain integers write 0 for what did not come; some estimate the
        # usage of a stream that has none.
        if "usage" not in case.completion or not (wanted or given):
            return True
        # A total may be left to the reader, or be what is known of it.
        return key == "usage.total_tokens" and (wanted is None or given is None)
    if key == "reasoning" and room.reasoning == "one":
        return given in reasonings(case, path)
    if key == "content" and room.content == "answer":
        return given in answers(case, path)
    if key in ("tool_calls.function.arguments", "function_call.arguments"):
        return same_arguments(room, wanted, given)
    if case.has_unreadable_chunks and reads_more(wanted, given):
        return True
    if key.startswith("logprobs") and not room.has("extra.logprobs"):
        wanted = [known_of_token(entry) for entry in objects(wanted)] or wanted
    if key.startswith(("logprobs", "annotations", "moderation")):
        return wanted is not None and within(wanted, given)
    return False


def reads_more(wanted: Any, given: Any) -> bool:
    """Tell whether a value only goes on from what was expected."""
    return wanted is None or (
        isinstance(wanted, str) and isinstance(given, str) and given.startswith(wanted)
    )


def known_of_token(entry: Object) -> Object:
    """Give a token entry without what the API does not define."""
    known = {name: entry[name] for name in ("token", "logprob", "bytes") if name in entry}
    others = [known_of_token(each) for each in objects(entry.get("top_logprobs"))]
    return known | ({"top_logprobs": others} if others else {})


def same_arguments(room: Room, wanted: Any, given: Any) -> bool:
    """Compare arguments; no arguments may be written as an empty object."""
    if wanted is None:
        return bool(given == "{}")
    if room.arguments == "text":
        return False
    return bool(decoded(wanted) == ({} if given is None else decoded(given)))


def decoded(value: Any) -> Any:
    """Read JSON arguments; other text stands for itself."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def within(wanted: Any, given: Any) -> bool:
    """Tell whether all that is wanted is there; more of it in an object does no harm."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        # The index says where a fragment belongs; put together, a list can do without.
        named = {name: value for name, value in wanted.items() if name in given or name != "index"}
        return all(within(value, given.get(name)) for name, value in named.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(within, wanted, given))
    # A number that came as text may be read as one.
    return bool(wanted == given) or (isinstance(given, float) and decoded(wanted) == given)


def carried(case: Case, key: str) -> list[Any]:
    """Give every value that the stream itself has for an envelope field."""
    return [chunk.get(key) for chunk in case.chunks]


def message_at(case: Case, path: str) -> Object:
    """Give the expected message that a leaf's path leads into."""
    index = int(path.partition("[")[2].partition("]")[0])
    messages: dict[int, Object] = {
        choice["index"]: choice["message"] for choice in case.completion["choices"]
    }
    # A format of one choice has it at 0, whatever the server's index.
    return messages.get(index) or messages[min(messages)]


def reasonings(case: Case, path: str) -> list[str | None]:
    """Give what may stand in a format's one place for reasoning."""
    message = message_at(case, path)
    content = message.get("content")
    details = message.get("reasoning_details")
    texts = [
        message.get("reasoning"),
        message.get("reasoning_content"),
        *(texts_of(content, "thinking") if isinstance(content, list) else ()),
        *(texts_of(details, "reasoning") if isinstance(details, list) else ()),
    ]
    return [text for text in texts if text] or [None]


def answers(case: Case, path: str) -> list[str | None]:
    """Give what may stand in a place that holds content and refusal."""
    message = message_at(case, path)
    content, refusal = text_of(message.get("content")) or "", message.get("refusal") or ""
    return [content + refusal or None, refusal + content or None]


def texts_of(parts: list[Any], kind: str) -> list[str]:
    """Give the text of all parts of a kind, joined; none if there is no such part."""
    found = [part for part in parts if isinstance(part, dict) and kind in str(part.get("type"))]
    return ["".join(text_in(part) for part in found)] if found else []


def text_in(part: Object) -> str:
    """Give the text of one part, which `thinking` parts keep one level down."""
    inner = part.get("thinking")
    if isinstance(inner, list):
        return "".join(text_in(each) for each in inner)
    return str(inner or part.get("text") or part.get("summary") or "")


def text_of(content: Any) -> Any:
    """Give content as the text that it holds."""
    if not isinstance(content, list):
        return content
    return "".join(texts_of(content, "text"))


def merged(content: Any) -> Any:
    """Join neighbouring parts of text or thinking, so that fragments count as a whole."""
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind not in ("text", "thinking"):
            parts.append(part)
            continue
        text = text_in(part) if isinstance(part, dict) else str(part)
        if parts and parts[-1].get("type") == kind:
            parts[-1] = {"type": kind, "text": parts[-1]["text"] + text}
        elif text:
            parts.append({"type": kind, "text": text})
    return parts


def pruned(value: Any) -> Any:
    """Make null, absent and empty one and the same."""
    if isinstance(value, dict):
        kept = {name: pruned(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each is not None} or None
    if isinstance(value, list):
        return [pruned(each) for each in value] or None
    if isinstance(value, str):
        return LONE.sub("\ufffd", value) or None
    return value


def leaves_of(completion: Object, room: Room) -> dict[str, Leaf]:
    """Give the values of a completion by their paths."""
    leaves = {name: Leaf(name, completion.get(name)) for name in (*ENVELOPE, "moderation")}
    leaves |= extras("completion", "", completion)
    usage = completion.get("usage")
    if usage and not isinstance(usage, dict):
        leaves["usage"] = Leaf("extra.completion.usage", usage)
    leaves |= leaves_of_usage(an_object(usage))
    choices = objects(completion.get("choices"))
    by_index = {as_index(choice.get("index", n)): choice for n, choice in enumerate(choices)}
    if room.choices == "first":
        by_index = {0: by_index[min(by_index)]} if by_index else {}
    for index, choice in by_index.items():
        leaves |= leaves_of_choice(choice, room, f"choices[{index}]")
    return leaves


def leaves_of_usage(usage: Object) -> dict[str, Leaf]:
    """Give the values of a usage by their paths."""
    leaves = {f"usage.{name}": Leaf(f"usage.{name}", usage.get(name)) for name in COUNTS}
    for name, known in DETAILS.items():
        for detail, value in an_object(usage.get(name)).items():
            key = f"usage.{name}" if detail in known else f"extra.usage.{name}"
            leaves[f"usage.{name}.{detail}"] = Leaf(f"{key}.{detail}", value)
    return leaves | extras("usage", "usage.", usage)


def leaves_of_choice(choice: Object, room: Room, path: str) -> dict[str, Leaf]:
    """Give the values of a choice by their paths."""
    message = an_object(choice.get("message"))
    at = f"{path}.message"
    leaves = {
        f"{path}.finish_reason": Leaf("finish_reason", choice.get("finish_reason")),
    }
    leaves |= fields("choice", "logprobs", choice.get("logprobs"), f"{path}.logprobs")
    for name in ("audio", "function_call"):
        leaves |= fields("message", name, message.get(name), f"{at}.{name}")
    for name, kind in MESSAGE.items():
        leaves[f"{at}.{name}"] = typed("message", name, message.get(name), kind)
    content = message.get("content")
    if isinstance(content, list):
        text = merged(content) if room.content == "any" else text_of(content)
        leaves[f"{at}.content"] = Leaf("content", text)
    if room.reasoning == "one":
        texts = (message.get("reasoning"), message.get("reasoning_content"))
        leaves[f"{at}.reasoning"] = Leaf("reasoning", next(filter(None, texts), None))
    leaves |= leaves_of_calls(message.get("tool_calls"), f"{at}.tool_calls")
    return leaves | extras("choice", f"{path}.", choice) | extras("message", f"{at}.", message)


def leaves_of_calls(calls: Any, path: str) -> dict[str, Leaf]:
    """Give the values of a message's tool calls by their paths."""
    if not isinstance(calls, list):
        return {path: Leaf("extra.message.tool_calls", calls)}
    # A call too many or too few is wrong, whatever the others are.
    leaves = {f"{path}.length": Leaf("tool_calls.length", len(calls) or None)}
    for n, call in enumerate(calls):
        leaves |= leaves_of_call(an_object(call), f"{path}[{n}]")
    return leaves


def leaves_of_call(call: Object, path: str) -> dict[str, Leaf]:
    """Give the values of a tool call by their paths."""
    leaves = {
        f"{path}.{name}": Leaf(f"tool_calls.{name}", call.get(name)) for name in ("id", "type")
    }
    leaves |= extras("tool_call", f"{path}.", call)
    for kind in ("function", "custom"):
        leaves |= fields("tool_call", kind, call.get(kind), f"{path}.{kind}", "tool_calls.")
    return leaves


def fields(level: str, name: str, value: Any, path: str, prefix: str = "") -> dict[str, Leaf]:
    """Give the values of an object inside of another by their paths."""
    if value and not isinstance(value, dict):
        return {path: Leaf(f"extra.{level}.{name}", value)}
    known = {
        f"{path}.{each}": Leaf(f"{prefix}{name}.{each}", an_object(value).get(each))
        for each in sorted(KNOWN[name])
    }
    return known | extras(name, f"{path}.", an_object(value))


def typed(level: str, name: str, value: Any, kind: type | tuple[type, ...]) -> Leaf:
    """Give a leaf; a value that the API could not send is a vendor's."""
    fits = value is None or isinstance(value, kind)
    return Leaf(name if fits else f"extra.{level}.{name}", value)


def extras(level: str, path: str, holder: Object) -> dict[str, Leaf]:
    """Give the fields of an object that the API does not define."""
    return {
        f"{path}{name}": Leaf(f"extra.{level}.{name}", value)
        for name, value in holder.items()
        if name not in KNOWN[level]
    }


def as_index(value: Any) -> Any:
    """Give 1.0 as 1, so that it is the same in a path."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def an_object(value: Any) -> Object:
    """Give an object; nothing else has fields."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Object]:
    """Give the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
