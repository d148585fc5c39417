"""Whether a peer's result is right, in everything that its format has room for."""

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from cases import Case, decoded

VERDICTS = ("right", "lost", "wrong", "raises")

Object = dict[str, Any]
# A value of a completion, after the name by which rooms know it.
Leaf = tuple[str, Any]
# Where a result is not what it should be: the verdict, the path, the expected and the actual value.
Difference = tuple[str, str, Any, Any]

ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")


def fields(names: str, kind: Any = object) -> dict[str, Any]:
    """Return fields of one type."""
    return dict.fromkeys(names.split(), kind)


# What the API defines at each level, and its type: a name is the level of an object inside, and
# None is handled elsewhere.
LEVELS: dict[str, dict[str, Any]] = {
    "completion": {
        **dict.fromkeys((*ENVELOPE, "moderation"), object),
        "usage": "usage", "object": None, "choices": None,
    },
    "usage": {
        **fields("prompt_tokens completion_tokens total_tokens"),
        "prompt_tokens_details": "usage.prompt", "completion_tokens_details": "usage.completion",
    },
    "usage.prompt": fields("audio_tokens cached_tokens"),
    "usage.completion": fields(
        "accepted_prediction_tokens audio_tokens reasoning_tokens rejected_prediction_tokens"
    ),
    "choice": {"finish_reason": object, "logprobs": "logprobs", "index": None, "message": None},
    "logprobs": fields("content refusal"),
    "message": {
        **fields("role refusal reasoning reasoning_content", str),
        "content": (str, list), "annotations": list, "audio": "audio", "tool_calls": None,
        "function_call": "function",
    },
    "audio": fields("id data transcript expires_at"),
    "tool_call": {**fields("id type"), "function": "function", "custom": "custom", "index": None},
    "function": fields("name arguments"),
    "custom": fields("name input"),
}  # fmt: skip
# Formats that cannot do without these make them up, and so does the specification with a role and
# a type. They only count if a server sent them.
MADE_UP = ("role", "tool_calls.id", "tool_calls.type", "audio.id")
REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
# Half of a surrogate pair without the other half; it may be kept or replaced.
LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")


# Abbreviations for several names in a room.
GROUPS = {
    "CALLS": "tool_calls.length tool_calls.id tool_calls.function",
    "USAGE": "usage.prompt_tokens usage.completion_tokens usage.total_tokens",
    "CACHED": "usage.prompt_tokens_details.cached_tokens",
    "REASONED": "usage.completion_tokens_details.reasoning_tokens",
    "AUDIO": "usage.prompt_tokens_details.audio_tokens"
    " usage.completion_tokens_details.audio_tokens",
    # The whole chat completion of the API.
    "API": "id created model service_tier system_fingerprint usage moderation role content refusal"
    " tool_calls function_call audio annotations finish_reason logprobs",
}


class Room:
    """What a peer's result format has places for; nothing else is held against it.

    A name includes everything below it, and "extra" is all that the API does not define; a name
    with a minus is left out. `choices` may be "first". `content` may be "text", which joins the
    text parts of a list, or "answer", which has the refusal in the same place. `reasoning` may be
    "one", a single place for whichever field came. `arguments` may be "json": kept parsed, so that
    their spelling is lost.
    """

    def __init__(
        self, names: str, choices: str = "", content: str = "", reasoning: str = "",
        arguments: str = "",
    ) -> None:  # fmt: skip
        words = " ".join(GROUPS.get(name, name) for name in names.split()).split()
        self.names = [word for word in words if f"-{word}" not in words]
        self.choices, self.content = choices, content
        self.reasoning, self.arguments = reasoning, arguments

    def has(self, key: str) -> bool:
        """Return whether the format has a place for what the key names."""
        return any(f"{key}.".startswith(f"{known}.") for known in self.names)


def judge(case: Case, room: Room, answer: Object) -> tuple[str, list[Difference]]:
    """Judge one answer of a peer, `{"result": …}` or `{"error": …}`; also return why."""
    if "error" in answer:
        return "right" if case.may_raise else "raises", []
    differences = list(compare(case, room, an_object(answer["result"])))
    return max((each[0] for each in differences), default="right"), differences


def asked(case: Case, room: Room) -> int:
    """Return how many values of a case a peer is asked for."""
    leaves = leaves_of(case.completion, room).values()
    return sum(room.has(key) and pruned(value) is not None for key, value in leaves)


def compare(case: Case, room: Room, result: Object) -> Iterator[Difference]:
    """Yield every difference in what there is room for."""
    expected, got = leaves_of(case.completion, room), leaves_of(result, room)
    for path, (key, _) in (got | expected).items():
        wanted, given = (pruned(leaves.get(path, ("", None))[1]) for leaves in (expected, got))
        if room.has(key) and not same(case, room, path, key, wanted, given):
            # A garbled vendor's field counts as one that did not arrive. Some peers turn a vendor's
            # finish reason into one of the API's.
            lost = given is None or key in ENVELOPE or key.startswith("extra")
            if key == "finish_reason" and wanted not in (None, *REASONS):
                lost = given in (None, *REASONS)
            yield "lost" if lost else "wrong", path, wanted, given


def same(case: Case, room: Room, path: str, key: str, wanted: Any, given: Any) -> bool:
    """Return whether two values count as equal; every benefit of the doubt is given here."""
    if wanted == given:
        return True
    if key in ENVELOPE:
        # Which of several is kept is our rule; an invented one counts as missing.
        carried = [chunk.get(key) for chunk in case.chunks]
        return not wanted or (given is not None and given in carried)
    if key.startswith("extra"):
        return wanted is None or within(wanted, given)
    if key in MADE_UP and (wanted is None or not case.sends(key.rpartition(".")[2])):
        return True
    if key.startswith("usage"):
        # Formats with plain integers write 0 for what did not come; some estimate the usage of a
        # stream that has none. A total may be left to the reader.
        unasked = "usage" not in case.completion or not (wanted or given)
        return unasked or (key == "usage.total_tokens" and None in (wanted, given))
    if key == "reasoning" and room.reasoning:
        return given in reasonings(message_at(case, path))
    if key == "content" and room.content == "answer":
        message = message_at(case, path)
        content, refusal = message.get("content") or "", message.get("refusal") or ""
        text = texts_of(content, "text") if isinstance(content, list) else content
        return given in (text + refusal or None, refusal + text or None)
    if key in ("tool_calls.function.arguments", "function_call.arguments"):
        if wanted is None:  # missing ones may be an empty object
            return bool(given == "{}")
        read = {} if given is None else decoded(given)
        return bool(room.arguments and decoded(wanted) == read)
    if case.has_unreadable_chunks:
        # It may only add to what was expected.
        texts = isinstance(wanted, str) and isinstance(given, str)
        return wanted is None or (texts and given.startswith(wanted)) or within(wanted, given)
    if key.startswith("logprobs") and not room.has("extra.logprobs"):
        wanted = [known_of_token(entry) for entry in objects(wanted)] or wanted
    return within(wanted, given)


def known_of_token(entry: Object) -> Object:
    """Return a token entry without what the API does not define."""
    known = {name: entry[name] for name in ("token", "logprob", "bytes") if name in entry}
    others = [known_of_token(each) for each in objects(entry.get("top_logprobs"))]
    return known | ({"top_logprobs": others} if others else {})


def within(wanted: Any, given: Any) -> bool:
    """Return whether everything wanted is there; more fields in an object do no harm."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        # The index says where a fragment belongs; a list that is put together needs none.
        named = {name: value for name, value in wanted.items() if name in given or name != "index"}
        return all(within(value, given.get(name)) for name, value in named.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(within, wanted, given))
    # A number that came as text may be read as a number.
    return bool(wanted == given) or (isinstance(given, float) and decoded(wanted) == given)


# --- texts --------------------------------------------------------------------------------


def message_at(case: Case, path: str) -> Object:
    """Return the expected message that a leaf's path leads into."""
    messages = {choice["index"]: choice["message"] for choice in case.completion["choices"]}
    # A format with one choice has it at 0, whatever the server's index.
    index = int(path.partition("[")[2].partition("]")[0])
    return an_object(messages.get(index) or messages[min(messages)])


def reasonings(message: Object) -> list[str | None]:
    """Return what may be in a format's single place for reasoning."""
    thoughts = texts_of(message.get("content"), "thinking")
    texts = (message.get("reasoning"), message.get("reasoning_content"), thoughts)
    return [text for text in texts if text] or [None]


def texts_of(content: Any, kind: str) -> str:
    """Return the text of all parts of a kind."""
    return "".join(text_in(part) for part in objects(content) if part.get("type") == kind)


def text_in(part: Object) -> str:
    """Return the text of one part, which `thinking` parts keep one level down."""
    inner = part.get("thinking")
    if isinstance(inner, list):
        return "".join(map(text_in, objects(inner)))
    return str(inner or part.get("text") or "")


def joined(content: list[Any]) -> list[list[str]]:
    """Return the kind and text of each part, with neighbours of the same kind joined."""
    parts = []
    for part in content:
        known = part if isinstance(part, dict) else {"type": "text", "text": str(part)}
        parts.append((str(known.get("type")), text_in(known)))
    together = groupby(filter(itemgetter(1), parts), key=itemgetter(0))
    return [[kind, "".join(text for _, text in group)] for kind, group in together]


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


# --- values by their paths ----------------------------------------------------------------


def leaves_of(completion: Object, room: Room) -> dict[str, Leaf]:
    """Return the values of a completion by their paths."""
    leaves = dict(walk("completion", completion))
    choices = {}
    for n, choice in enumerate(objects(completion.get("choices"))):
        index = choice.get("index", n)
        choices[int(index) if isinstance(index, float) and index.is_integer() else index] = choice
    if room.choices and choices:
        choices = {0: choices[min(choices)]}
    for index, choice in choices.items():
        message, at = an_object(choice.get("message")), f"choices[{index}].message."
        leaves |= walk("choice", choice, f"choices[{index}].")
        leaves |= walk("message", message, at)
        content = message.get("content")
        if isinstance(content, list):
            text = texts_of(content, "text") if room.content else joined(content)
            leaves[f"{at}content"] = "content", text
        if room.reasoning:
            texts = (message.get("reasoning"), message.get("reasoning_content"))
            leaves[f"{at}reasoning"] = "reasoning", next(filter(None, texts), None)
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            # One call too many or too few is wrong, whatever the others are.
            leaves[f"{at}tool_calls.length"] = "tool_calls.length", len(calls) or None
            for n, call in enumerate(map(an_object, calls)):
                leaves |= walk("tool_call", call, f"{at}tool_calls[{n}].", "tool_calls.")
        else:
            leaves[f"{at}tool_calls"] = "extra.message.tool_calls", calls
    return leaves


def walk(level: str, holder: Object, path: str = "", key: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield the values of an object and of the objects inside it."""
    known = LEVELS[level]
    for name in known | holder:
        value, kind = holder.get(name), known.get(name, ())
        if isinstance(kind, str) and (not value or isinstance(value, dict)):
            yield from walk(kind, value or {}, f"{path}{name}.", f"{key}{name}.")
        elif not isinstance(kind, str) and kind and (value is None or isinstance(value, kind)):
            yield f"{path}{name}", (f"{key}{name}", value)
        elif kind is not None:
            # What the API would not send is a vendor's.
            yield f"{path}{name}", (f"extra.{level}.{name}", value)


def an_object(value: Any) -> Object:
    """Return a value if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Object]:
    """Return the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
