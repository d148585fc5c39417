"""Whether a peer's result is the right one, as far as its format has room for it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from cases import Case

VERDICTS = ("right", "lost", "wrong", "raises")

Object = dict[str, Any]

ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")
FUNCTION = {"name": object, "arguments": object}
# What the API defines at each level, and of which type: a name is the level of an object inside,
# None is looked at elsewhere.
LEVELS: dict[str, dict[str, Any]] = {
    "completion": {
        **dict.fromkeys((*ENVELOPE, "moderation"), object),
        "usage": "usage", "object": None, "choices": None,
    },
    "usage": {
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), object),
        "prompt_tokens_details": "usage.prompt", "completion_tokens_details": "usage.completion",
    },
    "usage.prompt": dict.fromkeys(("audio_tokens", "cached_tokens"), object),
    "usage.completion": dict.fromkeys(
        ("accepted_prediction_tokens", "audio_tokens", "reasoning_tokens",
         "rejected_prediction_tokens"), object,
    ),
    "choice": {"finish_reason": object, "logprobs": "logprobs", "index": None, "message": None},
    "logprobs": {"content": object, "refusal": object},
    "message": {
        **dict.fromkeys(("role", "refusal", "reasoning", "reasoning_content"), str),
        "content": (str, list), "annotations": list, "audio": "audio",
        "function_call": "function_call", "tool_calls": None,
    },
    "audio": dict.fromkeys(("id", "data", "transcript", "expires_at"), object),
    "function_call": FUNCTION,
    "tool_call": {
        "id": object, "type": object, "function": "function", "custom": "custom", "index": None,
    },
    "function": FUNCTION,
    "custom": {"name": object, "input": object},
}  # fmt: skip
# Formats that cannot do without make these up, and so does the specification a role and a type;
# only what a server sent counts.
MADE_UP = ("role", "tool_calls.id", "tool_calls.type", "audio.id")
REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
# Half of a surrogate pair without the other half; whether it is kept or replaced is one.
LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")


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
        """Return whether the format has a place for what the key names."""
        parts = key.split(".")
        return any(".".join(parts[:n]) in self.keys for n in range(1, len(parts) + 1))


# A value of a completion behind the name that rooms know it by.
Leaf = tuple[str, Any]


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

    verdict: str
    differences: list[Difference] = field(default_factory=list)
    error: str | None = None


def judge(case: Case, room: Room, answer: Object) -> Judgement:
    """Judge one answer of a peer: `{"result": …}` or `{"error": …}`."""
    if "error" in answer:
        return Judgement("right" if case.may_raise else "raises", error=str(answer["error"]))
    differences = list(compare(case, room, an_object(answer["result"])))
    kinds = {difference.kind for difference in differences}
    return Judgement("wrong" if "wrong" in kinds else "lost" if kinds else "right", differences)


def asked(case: Case, room: Room) -> int:
    """Return how many values of a case a peer is asked for."""
    leaves = leaves_of(case.completion, room).values()
    return sum(room.has(key) and pruned(value) is not None for key, value in leaves)


def compare(case: Case, room: Room, result: Object) -> Iterator[Difference]:
    """Yield every difference that the room lets count."""
    expected, got = leaves_of(case.completion, room), leaves_of(result, room)
    for path, (key, _) in (got | expected).items():
        wanted, given = (pruned(leaves.get(path, ("", None))[1]) for leaves in (expected, got))
        if room.has(key) and not same(case, room, path, key, wanted, given):
            # A vendor's field that is garbled is a field that did not arrive. Some make one of the
            # API's reasons of a vendor's.
            lost = given is None or key in ENVELOPE or key.startswith("extra")
            if key == "finish_reason" and wanted not in (None, *REASONS):
                lost = given in (None, *REASONS)
            yield Difference(path, "lost" if lost else "wrong", wanted, given)


def same(case: Case, room: Room, path: str, key: str, wanted: Any, given: Any) -> bool:
    """Return whether two values count as equal; every benefit of the doubt is given here."""
    if wanted == given:
        return True
    if key in ENVELOPE:
        # Which of several is a rule of ours; an invented one is as good as none.
        carried = [chunk.get(key) for chunk in case.chunks]
        return not wanted or (given is not None and given in carried)
    if key.startswith("extra"):
        return wanted is None or within(wanted, given)
    if key in MADE_UP and (wanted is None or not case.sends(key.rpartition(".")[2])):
        return True
    if key.startswith("usage"):
        # Formats that count in plain integers write 0 for what did not come; some estimate the
        # usage of a stream that has none. A total may be left to the reader.
        unasked = "usage" not in case.completion or not (wanted or given)
        return unasked or (key == "usage.total_tokens" and None in (wanted, given))
    if key == "reasoning" and room.reasoning == "one":
        return given in reasonings(message_at(case, path))
    if key == "content" and room.content == "answer":
        return given in answers(message_at(case, path))
    if key in ("tool_calls.function.arguments", "function_call.arguments"):
        if wanted is None:  # none may be written as an empty object
            return bool(given == "{}")
        read = {} if given is None else decoded(given)
        return room.arguments == "json" and bool(decoded(wanted) == read)
    if case.has_unreadable_chunks and reads_more(wanted, given):
        return True
    if key.startswith("logprobs") and not room.has("extra.logprobs"):
        wanted = [known_of_token(entry) for entry in objects(wanted)] or wanted
    open_list = key.startswith(("logprobs", "annotations", "moderation"))
    return open_list and wanted is not None and within(wanted, given)


def reads_more(wanted: Any, given: Any) -> bool:
    """Return whether a value only goes on from what was expected."""
    texts = isinstance(wanted, str) and isinstance(given, str)
    return wanted is None or (texts and given.startswith(wanted))


def known_of_token(entry: Object) -> Object:
    """Return a token entry without what the API does not define."""
    known = {name: entry[name] for name in ("token", "logprob", "bytes") if name in entry}
    others = [known_of_token(each) for each in objects(entry.get("top_logprobs"))]
    return known | ({"top_logprobs": others} if others else {})


def decoded(value: Any) -> Any:
    """Return what JSON text says; other text stands for itself."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def within(wanted: Any, given: Any) -> bool:
    """Return whether all that is wanted is there; more of it in an object does no harm."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        # The index says where a fragment belongs; put together, a list can do without.
        named = {name: value for name, value in wanted.items() if name in given or name != "index"}
        return all(within(value, given.get(name)) for name, value in named.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(within, wanted, given))
    # A number that came as text may be read as one.
    return bool(wanted == given) or (isinstance(given, float) and decoded(wanted) == given)


def message_at(case: Case, path: str) -> Object:
    """Return the expected message that a leaf's path leads into."""
    messages = {choice["index"]: choice["message"] for choice in case.completion["choices"]}
    # A format of one choice has it at 0, whatever the server's index.
    index = int(path.partition("[")[2].partition("]")[0])
    return an_object(messages.get(index) or messages[min(messages)])


def reasonings(message: Object) -> list[str | None]:
    """Return what may stand in a format's one place for reasoning."""
    details = texts_of(message.get("reasoning_details"), "reasoning")
    thoughts = texts_of(message.get("content"), "thinking")
    texts = (message.get("reasoning"), message.get("reasoning_content"), thoughts, details)
    return [text for text in texts if text] or [None]


def answers(message: Object) -> list[str | None]:
    """Return what may stand in a place that holds content and refusal."""
    content, refusal = text_of(message.get("content")) or "", message.get("refusal") or ""
    return [content + refusal or None, refusal + content or None]


def texts_of(parts: Any, kind: str) -> str:
    """Return the text of all parts of a kind, joined."""
    found = [part for part in objects(parts) if kind in str(part.get("type"))]
    return "".join(map(text_in, found))


def text_in(part: Any) -> str:
    """Return the text of one part, which `thinking` parts keep one level down."""
    inner = an_object(part).get("thinking")
    if isinstance(inner, list):
        return "".join(map(text_in, inner))
    return str(inner or part.get("text") or part.get("summary") or "")


def text_of(content: Any) -> Any:
    """Return content as the text that it holds."""
    return texts_of(content, "text") if isinstance(content, list) else content


def merged(content: list[Any]) -> list[Any]:
    """Join neighbouring parts of text or thinking, so that fragments count as a whole."""
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
    """Return a value without what is null, absent or empty, which are the same."""
    if isinstance(value, dict):
        kept = {name: pruned(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each is not None} or None
    if isinstance(value, list):
        return [pruned(each) for each in value] or None
    if isinstance(value, str):
        return LONE.sub("\ufffd", value) or None
    return value


def leaves_of(completion: Object, room: Room) -> dict[str, Leaf]:
    """Return the values of a completion by their paths."""
    leaves = dict(walk("completion", completion))
    choices = {}
    for n, choice in enumerate(objects(completion.get("choices"))):
        index = choice.get("index", n)
        choices[int(index) if isinstance(index, float) and index.is_integer() else index] = choice
    if room.choices == "first" and choices:
        choices = {0: choices[min(choices)]}
    for index, choice in choices.items():
        message, at = an_object(choice.get("message")), f"choices[{index}].message."
        leaves |= walk("choice", choice, f"choices[{index}].")
        leaves |= walk("message", message, at)
        content = message.get("content")
        if isinstance(content, list):
            text = merged(content) if room.content == "any" else text_of(content)
            leaves[f"{at}content"] = "content", text
        if room.reasoning == "one":
            texts = (message.get("reasoning"), message.get("reasoning_content"))
            leaves[f"{at}reasoning"] = "reasoning", next(filter(None, texts), None)
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            # A call too many or too few is wrong, whatever the others are.
            leaves[f"{at}tool_calls.length"] = "tool_calls.length", len(calls) or None
            for n, call in enumerate(map(an_object, calls)):
                leaves |= walk("tool_call", call, f"{at}tool_calls[{n}].", "tool_calls.")
        else:
            leaves[f"{at}tool_calls"] = "extra.message.tool_calls", calls
    return leaves


def walk(level: str, holder: Object, path: str = "", key: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield the values of an object and of those inside of it."""
    known = LEVELS[level]
    for name in known | holder:
        value, kind = holder.get(name), known.get(name, ())
        if isinstance(kind, str) and (not value or isinstance(value, dict)):
            yield from walk(kind, value or {}, f"{path}{name}.", f"{key}{name}.")
        elif not isinstance(kind, str) and kind and (value is None or isinstance(value, kind)):
            yield f"{path}{name}", (f"{key}{name}", value)
        elif kind is not None:
            # What the API could not send is a vendor's.
            yield f"{path}{name}", (f"extra.{level}.{name}", value)


def an_object(value: Any) -> Object:
    """Return an object; nothing else has fields."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Object]:
    """Return the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
