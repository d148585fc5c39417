"""Whether a peer's result is right, in everything that its format has room for."""

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from cases import Case, decoded

VERDICTS = ("right", "lost", "wrong", "raises")

Object = dict[str, Any]
# Where a value of a completion is: names, and the index of a choice or call.
Path = tuple[Any, ...]
# A value of a completion, after the name by which rooms know it.
Leaf = tuple[str, Any]
# Where a result is not what it should be: the verdict, the path, the expected and the actual value.
Difference = tuple[str, str, Any, Any]

ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")
# What the API defines in each object, besides the objects inside.
API = {
    "completion": "id object created model choices usage service_tier system_fingerprint"
    " moderation",
    "usage": "prompt_tokens completion_tokens total_tokens prompt_tokens_details"
    " completion_tokens_details",
    "prompt_tokens_details": "audio_tokens cached_tokens",
    "completion_tokens_details": "accepted_prediction_tokens audio_tokens reasoning_tokens"
    " rejected_prediction_tokens",
    "choices": "index message finish_reason logprobs",
    "logprobs": "content refusal",
    "message": "role content refusal reasoning reasoning_content annotations tool_calls audio"
    " function_call",
    "audio": "id data transcript expires_at",
    "tool_calls": "index id type function custom",
    "function": "name arguments",
    "function_call": "name arguments",
    "custom": "name input",
}
# Formats that cannot do without these make them up, and so does the specification with a role and
# a type. They only count if a server sent them.
MADE_UP = ("role", "tool_calls.id", "tool_calls.type")
REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
# Half of a surrogate pair without the other half; it may be kept or replaced.
LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")

# Abbreviations for several names in a room.
GROUPS = {
    "CALLS": "tool_calls.length tool_calls.id tool_calls.function",
    "TYPES": "tool_calls.type tool_calls.custom",
    "USAGE": "usage.prompt_tokens usage.completion_tokens usage.total_tokens",
    "CACHED": "usage.prompt_tokens_details.cached_tokens",
    "REASONED": "usage.completion_tokens_details.reasoning_tokens",
    "AUDIO": "usage.prompt_tokens_details.audio_tokens"
    " usage.completion_tokens_details.audio_tokens",
    # The whole chat completion of the API, except the tool calls.
    "API": "id created model service_tier system_fingerprint usage moderation role content refusal"
    " function_call audio annotations finish_reason logprobs",
}


class Room:
    """What a peer's result format has places for; nothing else is held against it.

    A name includes everything below it, and "extra" is all that the API does not define; a name
    with a minus is left out. Other words say what a format does with what it keeps:

    - `:first` keeps the first choice alone;
    - `:text` joins the text parts of a list; `:answer` also puts a refusal into the content;
    - `:thoughts` has a single place for whichever field of reasoning came;
    - `:parsed` keeps arguments parsed, so that their spelling is lost.
    """

    def __init__(self, names: str) -> None:
        words = " ".join(GROUPS.get(name, name) for name in names.split()).split()
        self.names = {word for word in words if f"-{word}" not in words}

    def has(self, key: str) -> bool:
        """Return whether the format has a place for what the key names."""
        return any(f"{key}.".startswith(f"{known}.") for known in self.names)


def judge(case: Case, room: Room, answer: Object) -> tuple[str, list[Difference]]:
    """Judge one answer of a peer, `{"result": …}` or `{"error": …}`; also return why."""
    if "error" in answer:
        return "right" if case.may_raise else "raises", []
    differences = list(compare(case, room, answer["result"]))
    return max((each[0] for each in differences), default="right"), differences


def asked(case: Case, room: Room) -> int:
    """Return how many values of a case a peer is asked for."""
    return sum(room.has(key) for key, _ in leaves_of(case.completion, room).values())


def compare(case: Case, room: Room, result: object) -> Iterator[Difference]:
    """Yield every difference in what there is room for."""
    expected, got = leaves_of(case.completion, room), leaves_of(result, room)
    for path, (key, _) in (got | expected).items():
        wanted, given = (leaves.get(path, ("", None))[1] for leaves in (expected, got))
        if room.has(key) and not same(case, room, key, wanted, given):
            # A garbled vendor's field counts as one that did not arrive. Some peers turn a vendor's
            # finish reason into one of the API's.
            lost = given is None or key in ENVELOPE or key.startswith("extra")
            if key == "finish_reason" and wanted not in (None, *REASONS):
                lost = given in (None, *REASONS)
            yield "lost" if lost else "wrong", path, wanted, given


def same(case: Case, room: Room, key: str, wanted: Any, given: Any) -> bool:
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
    if key.endswith(".arguments"):
        if wanted is None:  # missing ones may be an empty object
            return bool(given == "{}")
        return bool(":parsed" in room.names and decoded(wanted) == decoded(given or "{}"))
    if case.has_unreadable_chunks:
        # It may only add to what was expected.
        texts = isinstance(wanted, str) and isinstance(given, str)
        return wanted is None or (texts and given.startswith(wanted))
    if key == "reasoning" and ":thoughts" in room.names:
        messages = [choice["message"] for choice in case.completion["choices"]]
        return given is not None and any(given in thoughts_of(each) for each in messages)
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


# --- values by their paths ----------------------------------------------------------------


def leaves_of(completion: Any, room: Room) -> dict[Path, Leaf]:
    """Return the values of a completion by their paths."""
    whole = an_object(completion)
    leaves = dict(walk("completion", whole | {"choices": None}))
    choices = {}
    for n, choice in enumerate(objects(whole.get("choices"))):
        choices[str(choice.get("index", n)).removesuffix(".0")] = choice
    if ":first" in room.names and choices:
        choices = {"0": next(iter(choices.values()))}
    for index, choice in choices.items():
        message = as_kept(an_object(choice.get("message")), room)
        leaves |= walk("choices", choice | {"message": message}, (index,))
    return {path: leaf for path, leaf in leaves.items() if leaf[1] is not None}


def as_kept(message: Object, room: Room) -> Object:
    """Return a message in the form that a format keeps it in."""
    content, refusal, kept = message.get("content"), message.get("refusal"), dict(message)
    if isinstance(content, list):
        is_text = not room.names.isdisjoint((":text", ":answer"))
        kept["content"] = texts_of(content, "text") if is_text else joined(content)
    if ":answer" in room.names and isinstance(refusal, str):
        kept["content"] = (kept.get("content") or "") + refusal
    if ":thoughts" in room.names:
        kept["reasoning"] = next(filter(None, thoughts_of(message)[:2]), None)
    return kept


def thoughts_of(message: Object) -> list[Any]:
    """Return the reasoning in the fields of a message, and in its content."""
    fields = [message.get("reasoning"), message.get("reasoning_content")]
    return [*fields, texts_of(message.get("content"), "thinking")]


def walk(level: str, holder: Object, path: Path = (), key: str = "") -> Iterator[tuple[Path, Leaf]]:
    """Yield the values of an object and of the objects inside it."""
    for name, value in holder.items():
        at, known = (*path, name), name in API[level].split()
        if known and name == "tool_calls" and isinstance(value, list):
            # One call too many or too few is wrong, whatever the others are.
            yield (*at, "length"), ("tool_calls.length", len(value) or None)
            for n, call in enumerate(value):
                yield from walk(name, an_object(call), (*at, n), "tool_calls.")
        elif known and name in API and isinstance(value, dict):
            yield from walk(name, value, at, key if name == "message" else f"{key}{name}.")
        elif known and name not in API and (level != "message" or isinstance(value, str | list)):
            yield at, (f"{key}{name}", pruned(value))
        else:
            # What the API would not send is a vendor's.
            yield at, (f"extra.{level}.{name}", pruned(value))


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


def an_object(value: Any) -> Object:
    """Return a value if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Object]:
    """Return the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
