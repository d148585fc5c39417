"""Reduce a stream slowly and plainly: the rules of SPEC once more, as the judge of the package.

It shares nothing with the package. Where the two differ, one of them is wrong.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Object = dict[str, Any]


@dataclass
class Outcome:
    """Hold what a closed stream came to; `problems` are their kinds."""

    completion: Object
    status: str
    problems: list[str]
    error: object | None = None


def reduce_body(
    body: bytes, rules: Mapping[str, str] | None = None, *, think_tags: bool = False
) -> Outcome:
    """Reduce a whole body: an event stream, JSON, or JSON Lines."""
    reader = Reader(Reducer(rules, think_tags=think_tags))
    for line in split_lines(body):
        reader.line(line)
    return reader.close()


# ---- SPEC 2: framing ----


def split_lines(body: bytes) -> list[bytes]:
    """Split at CR, LF and CRLF; what follows the last line end is a line unless empty."""
    *lines, rest = re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    return [*lines, rest] if rest else lines


ENDS = ("[DONE]", '"[DONE]"')
OWN_EVENTS = ("", "message", "error", "chunk", "data", "completion")


class Reader:
    """Turn lines into events and JSON texts, and these into chunks."""

    def __init__(self, reducer: Reducer) -> None:
        self.reducer = reducer
        self.event: bytes | None = None  # the open event's name and data
        self.data: list[bytes] = []
        self.text: list[bytes] = []  # the lines of a JSON text without `data:` that is not whole
        self.unread = False  # a line came that is nothing at all

    def line(self, line: bytes) -> None:
        if self.text and ends_text(line):
            self.decode(b"\n".join(self.text))
            self.text = []
            self.reducer.problem("malformed_json")
        if self.text or (self.event is None and not self.data and begins_text(line)):
            self.go_on_with_text(line)
        elif line.strip() == b"[DONE]":
            self.dispatch("malformed_json")
            self.end()
        else:
            self.field(line)

    def field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            self.dispatch("malformed_json")
        elif name == b"data":
            if not value.startswith(b":"):  # Vertex keeps alive with `data: : keepalive`
                if (
                    len(self.data) == 1
                    and is_object(self.data[0])
                    and (is_object(value.strip()) or value.strip() == b"[DONE]")
                ):
                    event = self.event  # a recorded log that lost its blank lines
                    self.dispatch("malformed_json")
                    self.event = event
                self.data.append(value)
        elif name == b"event":
            self.event = value
        elif name == b"error" and not self.data and value.strip():  # llama.cpp
            is_end = value.strip().decode("latin-1") in ENDS  # under any name
            self.end() if is_end else self.error_event(self.decode(value))
        elif name not in (b"", b"id", b"retry") and not NOTHING.fullmatch(line):
            self.unread = True

    def go_on_with_text(self, line: bytes) -> None:
        self.text.append(line)
        body = b"\n".join(self.text)
        if (size := closing_bracket(body)) is None:
            return
        self.text = []
        rest = body[size:].strip(BLANKS)
        done = rest.startswith(b"data:") and rest[5:].strip().decode("latin-1") in ENDS
        text = self.decode(body if rest and not done else body[:size])
        value = parse(text)
        if rest and not done:
            self.reducer.problem("malformed_json")
        elif isinstance(value, list):
            for entry in value:
                self.reducer.value(entry)
        else:
            self.judge(text)
        if done:
            self.end()

    def end(self) -> None:
        self.note_unread()
        self.reducer.end()

    def close(self) -> Outcome:
        if self.text:
            self.reducer.problem("unterminated_event")
        self.dispatch("unterminated_event")
        self.note_unread()
        return self.reducer.outcome()

    def note_unread(self) -> None:
        """Report a body in which nothing could be read, such as a page of HTML."""
        if self.unread and not self.reducer.started and not self.reducer.problems:
            self.reducer.problem("malformed_json")

    def dispatch(self, if_broken: str) -> None:
        data, event = b"\n".join(self.data), (self.event or b"").decode("latin-1")
        self.data, self.event = [], None
        if self.reducer.ended or not data.strip():
            return
        if data.strip().decode("latin-1") in ENDS:
            self.end()
            return
        text = self.decode(data)
        values = [parse(line) for line in text.split("\n")]
        if event == "error":
            self.error_event(text)
        elif parse(text) is BROKEN and (
            any(isinstance(value, dict) for value in values) or BROKEN not in values
        ):
            *lines, last = text.split("\n")  # a recorded log that lost its blank lines
            for line in lines:
                self.judge(line, event=event)
            self.judge(last, if_broken, event)
        else:
            self.judge(text, if_broken, event)

    def judge(self, text: str, if_broken: str = "malformed_json", event: str = "") -> None:
        """Read one JSON text of an event."""
        value = parse(text)
        foreign = event not in OWN_EVENTS
        stripped = text.strip(WHITESPACE)
        if not stripped:
            return
        if stripped in ENDS:
            self.end()
        elif value is not BROKEN:
            self.reducer.value(value, foreign)
        elif if_broken == "malformed_json" and re.match(r'\s*\{\s*"error"\s*:\s*[{"]', text):
            self.reducer.fail(text)  # transformers writes messages without escapes
        elif foreign and stripped[:1] not in ("{", "["):
            self.reducer.problem("foreign_event")
        else:
            self.reducer.problem(if_broken)

    def error_event(self, text: str) -> None:
        value = parse(text)
        if value is BROKEN:
            self.reducer.fail(text)
        elif chunk := error_object(value):
            self.reducer.chunk(chunk)
        else:
            self.reducer.fail(True if value is None else value)

    def decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.reducer.problem("invalid_utf8")
            return data.decode(errors="replace")


def is_object(data: bytes) -> bool:
    """Whether it is a chunk that ends where its line ends."""
    return data.startswith(b"{") and parse(data.decode(errors="replace")) is not BROKEN


BLANKS = b" \t"
NOTHING = re.compile(rb'\{\}|[ \t]*(?:null|""|\[[ \t]*\])[ \t]*')
WHITESPACE = " \t\n\r\x0b\f"  # of ASCII, as of bytes: `str.strip` takes U+001C for one, too


def begins_text(line: bytes) -> bool:
    return re.match(rb"[ \t]*(\{|\[[ \t]*([{\[\]]|$))", line) is not None


def ends_text(line: bytes) -> bool:
    """Whether a line cannot belong to the JSON text before it."""
    if line.startswith((b"data:", b"event:", b"error:", b":")) or line.strip() == b"[DONE]":
        return True
    value = parse(line.decode(errors="replace"))
    return isinstance(value, dict) and value != {}


def closing_bracket(text: bytes) -> int | None:
    """Return where the bracket that a text begins with is closed."""
    depth = 0
    for found in re.finditer(rb'"(?:[^"\\]|\\.?)*("|$)|[{\[]|[}\]]', text, re.DOTALL):
        depth += found[0] in b"{["
        depth -= found[0] in b"}]"
        if depth == 0:
            return found.end()
    return None


BROKEN = object()


def parse(text: str) -> object:
    """Parse JSON; BROKEN for anything else, and for the numbers that JSON does not have."""
    try:
        return json.loads(text, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        return BROKEN


def finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


# ---- SPEC 9: the shape of the result ----


@dataclass
class Level:
    """Hold one object of the result: the fields that the API names, and the others."""

    known: Object = field(default_factory=dict)
    extra: Object = field(default_factory=dict)
    always: tuple[str, ...] = ()  # null where nothing arrived

    @property
    def came(self) -> bool:
        return bool(self.known or self.extra)

    def text(self, key: str) -> str:
        return text_of(self.known.get(key))

    def below(self, key: str, always: tuple[str, ...] = ()) -> Level:
        level: Level = self.known.setdefault(key, Level(always=always))
        return level


@dataclass(eq=False)
class Call:
    order: int
    level: Level = field(default_factory=Level)
    indices: set[int] = field(default_factory=set)
    named_in: int = 0  # which list of the choice's `tool_calls` brought the name
    judged: bool = False

    def text(self, tool: str, key: str) -> str:
        level: Level = self.level.known.get(tool, Level())
        return level.text(key)

    @property
    def id(self) -> str:
        return self.level.text("id")

    @property
    def name(self) -> str:
        return as_fragment(self.text("function", "name") or self.text("custom", "name"))

    @property
    def arguments(self) -> str:
        return self.text("function", "arguments")

    @property
    def input(self) -> str:
        return self.text("custom", "input")

    @property
    def whole(self) -> bool:
        return is_whole(self.arguments) if self.arguments else bool(self.input)

    def close(self) -> None:
        """Leave out an empty tool beside another one, and name the type where none came."""
        tools = [tool for tool in ("function", "custom") if tool in self.level.known]
        full = [tool for tool in tools if self.level.known[tool].came]
        for tool in tools if full else []:
            if tool not in full:
                del self.level.known[tool]
        if tools and "type" not in self.level.extra:
            self.level.known["type"] = self.level.known.get("type") or [*full, *tools][0]


@dataclass(eq=False)
class Choice:
    level: Level = field(default_factory=lambda: Level(always=("finish_reason", "logprobs")))
    message: Level = field(default_factory=lambda: Level(always=("content", "refusal")))
    calls: list[Call] = field(default_factory=list)
    last_call: Call | None = None
    lists: int = 0  # of `tool_calls`, so far
    brought: set[str] = field(default_factory=set)  # the fields that deltas filled
    went_on: bool = False  # something came since the last finish reason
    tags: str = ""  # with `think_tags`, "before", "inside" or "behind" them, then "none"
    held: str = ""  # what may become a tag
    was_over: bool = False  # it had a finish reason before this delta
    error: object = None  # True where only the finish reason says so

    @property
    def finish_reason(self) -> str:
        return self.level.text("finish_reason")

    def named_now(self, call: Call) -> bool:
        """Whether a call got its name from the list of `tool_calls` that is being read."""
        return call.named_in == self.lists

    def in_order(self) -> list[Call]:
        return sorted(self.calls, key=lambda call: call.order)


def plain(value: object) -> object:
    if isinstance(value, Level):
        value = {**dict.fromkeys(value.always), **value.extra, **value.known}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


class Fragment:
    """Hold what an entry of `tool_calls` says about the call that it belongs to."""

    def __init__(self, entry: Object) -> None:
        tools = {key: entry.get(key) for key in ("function", "custom")}
        function, custom = (tool if isinstance(tool, dict) else {} for tool in tools.values())
        self.index = integer(entry.get("index"))
        self.id = healed(text_of(entry.get("id")))
        self.name = as_fragment(text_of(function.get("name")) or text_of(custom.get("name")))
        arguments, input_ = function.get("arguments"), custom.get("input")
        texts = [as_json(text) for text in (arguments, input_) if is_a((str, dict, list), text)]
        self.text = next(filter(None, texts), "")


# Which entry of a list another one merges into: its place, past the end for an entry of its own, or
# None for one that nothing merges into.
Find = Callable[[list[Any], Any], "int | None"]
# How one field merges: by a rule, or, if the API names it, by a type and what to do with it.
Rule = Callable[[str, Any, Any], Any]  # (key, the value so far or None, the new one)
Kind = type | tuple[type, ...]
Table = dict[str, tuple[Kind, Callable[[Level, str, Any], None]]]


class Reducer:
    """Merge chunks into one completion. `rules` are the caller's: path to policy."""

    def __init__(self, rules: Mapping[str, str] | None = None, *, think_tags: bool = False) -> None:
        rules = rules or {}
        self.think_tags = think_tags
        self.collected = {path for path, policy in rules.items() if policy == "collect"}
        self.cumulative = rules.get("delta.tool_calls.function.arguments") == "last"
        self.completion = Level()
        self.choices: dict[int, Choice] = {}
        self.usage = Level()
        self.usage_came = False
        self.stands_in = False  # whether the usage is that of `x_groq`, where misfits stay
        self.last_id = ""
        self.says_text = self.brings_text = False  # of a legacy completion
        self.problems: list[str] = []
        self.started = self.ended = self.failed = self.done = False
        self.error: object = None

    # ---- SPEC 6: how a stream ends ----

    def end(self) -> None:
        if not self.ended and not self.all_finished() and (self.choices or self.any_usage()):
            self.problems.append("no_finish_reason")
        self.done = self.done or not self.ended
        self.ended = True

    def all_finished(self) -> bool:
        choices = self.choices.values()
        return bool(choices) and all(choice.finish_reason for choice in choices)

    def fail(self, error: object) -> None:
        if not self.ended:
            self.ended = self.failed = True
            self.error = self.heal(error)
            self.problems.append("server_error")

    def problem(self, kind: str) -> None:
        if not self.ended:
            self.problems.append(kind)

    def outcome(self) -> Outcome:
        for choice in self.choices.values():
            self.release(choice)
        in_order = [choice for _, choice in sorted(self.choices.items())]
        errors = [choice.error for choice in in_order if choice.error]
        if errors and not self.failed:
            self.failed = True
            self.error = next((error for error in errors if error is not True), True)
        if self.failed:
            status = "failed"
        elif self.all_finished() or (self.done and (self.choices or self.any_usage())):
            status = "complete"
        else:
            status = "truncated"
        is_text = self.says_text and self.brings_text
        self.completion.known["object"] = "text_completion" if is_text else "chat.completion"
        self.completion.known["choices"] = [choice.level for choice in in_order]
        for choice in in_order:
            self.judge_arguments(choice)
            self.close_choice(choice, is_text)
        self.close_usage()
        completion: Any = self.heal(plain(self.completion))  # what was concatenated, at last
        return Outcome(completion, status, self.problems, self.error)

    def close_choice(self, choice: Choice, is_text: bool) -> None:
        message = choice.message
        if not message.known.get("role"):
            message.known.pop("role", None)
        for call in choice.calls:
            call.close()
        if choice.calls:
            message.known["tool_calls"] = [call.level for call in choice.in_order()]
        if is_text and not message.came:
            if logprobs := choice.level.known.get("logprobs"):
                logprobs.always = ()
            return
        if "role" not in message.extra:
            message.known.setdefault("role", "assistant")
        choice.level.known["message"] = message

    # ---- SPEC 3: the fields of each level that the API names ----

    def value(self, value: Any, foreign: bool = False) -> None:
        """Read one JSON value; `foreign` if its event has another protocol's name."""
        if self.ended or value is None or value in ("", [], {}):
            return
        says_nothing = isinstance(value, dict) and all(
            item is None or name == "obfuscation" for name, item in value.items()
        )
        first, self.started = not self.started, self.started or not says_nothing
        if first and is_other_api(value):
            self.problems.append("other_api")
            self.ended = True
        elif foreign and not is_own(value):
            self.problems.append("foreign_event")
        else:
            self.chunk(error_object(value) if isinstance(value, list) else value)

    def chunk(self, chunk: Any) -> None:
        if self.ended:
            return
        if not is_chunk(chunk):
            self.problems.append("invalid_chunk")
            if error := error_in(chunk):
                self.fail(error)
            return
        self.says_text = self.says_text or chunk.get("object") == "text_completion"
        table: Table = {
            "id": (str, self.chunk_id),
            "model": (str, self.first),
            "created": (int, self.first),
            "service_tier": (str, self.put),
            "system_fingerprint": (str, self.put),
            "moderation": (dict, self.put),
            "usage": (dict, self.add_usage),
        }
        drop = ("object", "obfuscation", "choices", "error")
        self.take(chunk, self.completion, table, self.in_chunk, drop, "chunk")
        error = error_in(chunk)
        finished = [choice for choice in self.choices.values() if choice.finish_reason]
        entries = [
            self.choice(position, entry, in_failed_chunk=bool(error))
            for position, entry in enumerate(chunk.get("choices") or [])
            if entry is not None
        ]
        for choice in finished:
            if (choice, True) not in entries and ((choice, False) in entries or not entries):
                self.judge_arguments(choice)
        if error:
            self.fail(error)

    def chunk_id(self, level: Level, key: str, id_: str) -> None:
        self.first(level, key, id_)
        id_ = healed(id_)
        if id_ and self.last_id not in ("", id_):
            self.problems.append("id_changed")
        self.last_id = id_ or self.last_id

    def choice(self, position: int, entry: Object, in_failed_chunk: bool) -> tuple[Choice, bool]:
        """Merge a choice; return it, and whether the chunk adds something to it."""
        read = integer(entry.get("index"))
        index = position if read is None else read
        choice = self.choices.setdefault(index, Choice())
        choice.level.known["index"] = index
        before, brings = choice.finish_reason, False
        choice.was_over = bool(before)
        has_delta = entry.get("delta") is not None
        # Perplexity sends the whole message so far beside each delta.
        source, other = ("delta", "message") if has_delta else ("message", "delta")

        def content(fields: Object) -> None:
            nonlocal brings
            if brings_content(fields) and not brings:
                brings = True
                self.problems += ["content_after_finish"] if before else []

        def delta(_level: Level, _key: str, delta: Object) -> None:
            if has_delta:
                choice.brought |= {key for key, value in delta.items() if not is_empty(value)}
            else:  # a closing message repeats the deltas' fields
                delta = {key: delta[key] for key in delta if key not in choice.brought}
            content(delta)
            self.delta(choice, self.without_tags(choice, delta) if self.think_tags else delta)

        def text(level: Level, key: str, text: str) -> None:
            self.brings_text = True
            content({"content": text})
            self.concat(level, key, text)

        table: Table = {
            "index": (int, self.nothing),
            "finish_reason": (str, self.put_non_empty),
            "logprobs": (dict, self.logprobs),
            "usage": (dict, self.add_usage),  # Moonshot
            source: (dict, delta),
        }
        if not has_delta:
            table["text"] = (str, text)  # a legacy completion
        self.take(entry, choice.level, table, self.in_choice, ("obfuscation", other), "choice")
        if choice.finish_reason:
            self.release(choice)
        self.note_failure(choice, entry, in_failed_chunk)
        finishes = bool(text_of(entry.get("finish_reason")))
        moved = brings or choice.finish_reason != before or (choice.went_on and finishes)
        choice.went_on = not finishes and (brings or choice.went_on)
        return choice, bool(moved)

    def note_failure(self, choice: Choice, entry: Object, in_failed_chunk: bool) -> None:
        error = choice.level.extra.get("error") if error_of(entry) else None
        error = error or choice.finish_reason == "error"
        if error and not choice.error and not in_failed_chunk:
            self.problems.append("server_error")
        if error and (not choice.error or choice.error is True):
            choice.error = error

    def logprobs(self, level: Level, key: str, logprobs: Object) -> None:
        table: Table = {"content": (list, self.tokens), "refusal": (list, self.tokens)}
        below = level.below(key, always=("content", "refusal"))
        self.take(logprobs, below, table, self.in_choice)

    def tokens(self, level: Level, key: str, entries: list[Any]) -> None:
        table: Table = {
            "token": (str, self.put),
            "logprob": ((int, float), self.put),
            "bytes": (list, self.token_bytes),
        }
        if key != "top_logprobs":
            table["top_logprobs"] = (list, self.tokens)
        level.known.setdefault(key, [])
        for entry in self.objects_in(level, key, entries, self.in_choice):
            token = Level(always=("bytes",))
            self.take(entry, token, table, self.in_choice)
            level.known[key].append(token)

    def token_bytes(self, level: Level, key: str, value: list[object]) -> None:
        integers = [integer(item) for item in value]
        if None in integers:
            self.misfit(level, key, value, self.in_choice)
            return
        if not all(is_a(int, item) for item in value):
            self.problems.append("invalid_field")
        level.known[key] = integers

    def delta(self, choice: Choice, delta: Object) -> None:
        def tool_calls(level: Level, key: str, entries: Object | list[Any]) -> None:
            choice.lists += 1
            of_one = [entries] if isinstance(entries, dict) else entries  # old TGI
            for entry in self.objects_in(level, key, of_one, self.in_delta):
                self.tool_call(choice, entry)

        table: Table = {
            "role": (str, self.first),
            "content": ((str, list), self.content),
            "refusal": (str, self.concat),
            "reasoning": (str, self.concat),
            "reasoning_content": (str, self.concat),
            "tool_calls": ((list, dict), tool_calls),
            "function_call": (dict, self.function_call),
            "audio": (dict, self.audio),
            "annotations": (list, self.annotations),
        }
        self.take(delta, choice.message, table, self.in_delta, path="delta")

    def without_tags(self, choice: Choice, delta: Object) -> Object:
        """Return a delta without content that is in tags or may be."""
        content, names = delta.get("content"), ("reasoning", "reasoning_content")
        if choice.tags == "none" or not is_a((str, list), content):
            return delta
        both = (choice.message.known, delta)
        apart = any(text_of(fields.get(name)) for fields in both for name in names)
        if isinstance(content, list) or (apart and choice.tags in ("", "before")):
            self.release(choice)
            choice.tags = "none"
            return delta
        choice.tags = choice.tags or "before"
        for place, letter in enumerate(text_of(content)):
            self.letter(choice, letter)
            if choice.tags == "none":
                return {**delta, "content": text_of(content)[place + 1 :]}
        if choice.was_over:
            self.release(choice)
        return {key: value for key, value in delta.items() if key != "content"}

    def letter(self, choice: Choice, letter: str) -> None:
        """Read a letter of content that may be in a tag, between tags or after them."""
        choice.held += letter
        begun = choice.held.lstrip(" \t\r\n")
        if choice.tags == "before" and begun == "<think>":
            choice.tags, choice.held = "inside", ""
        elif choice.tags == "before":
            if len(choice.held) - len(begun) > 256 or not "<think>".startswith(begun):
                self.release(choice)
        elif choice.tags == "behind":
            choice.held = begun
            if begun:
                choice.tags = "before"
                self.release(choice)
        elif choice.held == "</think>":
            choice.tags, choice.held = "behind", ""
        else:
            while not "</think>".startswith(choice.held):
                self.think(choice, choice.held[0])
                choice.held = choice.held[1:]

    def release(self, choice: Choice) -> None:
        """Treat what might have become a tag as text."""
        if choice.tags == "before":
            self.concat(choice.message, "content", choice.held)
            choice.tags = "none"
        elif choice.held:
            self.think(choice, choice.held)
        choice.held = ""

    def think(self, choice: Choice, text: str) -> None:
        self.concat(choice.message, "reasoning_content", text)
        choice.brought.add("reasoning_content")  # a closing message repeats it

    def content(self, level: Level, key: str, content: str | list[object]) -> None:
        before = level.known.get(key)
        if isinstance(before, list) or isinstance(content, list):
            new = content if isinstance(content, list) else [content]
            level.known[key] = self.parts(before, new)
        else:
            self.concat(level, key, content)

    def parts(self, before: Any, new: list[Any]) -> list[Any]:
        if isinstance(before, str):
            before, new = [], [before, *new]
        parts = [
            {"type": "text", "text": each} if isinstance(each, str) else each
            for each in new
            if each != ""
        ]
        return self.entries(before, parts, neighbour, self.in_part)

    def in_part(self, key: str, old: Any, new: Any) -> Any:
        if key == "thinking" and isinstance(new, list):
            return self.parts(old, new)
        if key == "thinking" and isinstance(old, list) and isinstance(new, str):
            return self.parts(old, [new])
        return self.in_object(key, old, new)

    def annotations(self, level: Level, key: str, entries: list[object]) -> None:
        level.known[key] = self.longer(level.known.get(key), entries)

    def audio(self, level: Level, key: str, audio: Object) -> None:
        table: Table = {
            "id": (str, self.first),
            "transcript": (str, self.concat),
            "data": (str, self.audio_data),
            "expires_at": (int, self.put),
        }
        self.take(audio, level.below(key), table, self.in_object)

    def audio_data(self, level: Level, key: str, data: str) -> None:
        whole = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
        if re.fullmatch(whole, data):
            joined = base64.b64decode(level.known.get(key, "")) + base64.b64decode(data)
            level.known[key] = base64.b64encode(joined).decode()
        else:
            self.misfit(level, key, data, self.in_object)

    def function_call(self, level: Level, key: str, fragment: Object) -> None:
        table: Table = {
            "name": (str, self.concat_name),
            "arguments": ((str, dict, list), self.add_arguments),
        }
        self.take(fragment, level.below(key), table, self.in_object)

    # ---- SPEC 4: tool calls ----

    def tool_call(self, choice: Choice, entry: Object) -> None:
        fragment = Fragment(entry)
        call = choice.last_call = self.find_call(choice, fragment) or Call(len(choice.calls))
        if call not in choice.calls:
            choice.calls.append(call)
        if fragment.index is not None:
            call.order = call.order if call.indices else fragment.index
            call.indices.add(fragment.index)
        table: Table = {
            "index": (int, self.nothing),
            "id": (str, self.first),
            "type": (str, self.first),
            "function": (dict, self.tool),
            "custom": (dict, self.tool),
        }
        self.take(entry, call.level, table, self.in_delta)
        if call.name and not call.named_in:
            call.named_in = choice.lists

    def tool(self, level: Level, key: str, fragment: Object) -> None:
        arguments = self.put_json if self.cumulative else self.add_arguments
        texts = {"function": ("arguments", arguments), "custom": ("input", self.add_input)}
        name, merge = texts[key]
        table: Table = {"name": (str, self.concat_name), name: ((str, dict, list), merge)}
        self.take(fragment, level.below(key), table, self.in_delta)

    def add_arguments(self, level: Level, key: str, value: object) -> None:
        so_far, new = level.text(key), as_json(value)
        if is_whole(so_far) and new.strip(JSON_BLANKS):
            if repeats(so_far, new):  # vLLM and OpenCodex send the whole again
                return
            if so_far == "{}" and new.startswith("{"):  # Envoy and llama-stack
                level.known[key] = ""
            else:
                self.problems.append("arguments_after_end")
        self.concat(level, key, new)

    def add_input(self, level: Level, key: str, value: object) -> None:
        self.concat(level, key, as_json(value))

    def put_json(self, level: Level, key: str, value: object) -> None:
        level.known[key] = as_json(value)

    def find_call(self, choice: Choice, new: Fragment) -> Call | None:
        """Find the call that a fragment belongs to; None is a new one."""
        same_id = [call for call in choice.calls if new.id and call.id == new.id]
        holders = [call for call in choice.calls if new.index in call.indices]
        if same_id:
            return self.by_id(choice, new, same_id, holders)
        if new.index is None:
            return self.without_index(choice, new)
        if not holders:
            return self.at_free_index(choice, new)
        return self.at_held_index(choice, new, holders[-1])

    def by_id(
        self, choice: Choice, new: Fragment, same_id: list[Call], holders: list[Call]
    ) -> Call | None:  # 1
        call = [*same_id, *(call for call in same_id if call in holders)][-1]
        at_free_index = new.index is not None and not holders
        another = choice.named_now(call) and (new.name != call.name or call.whole)
        starts = new.name and ((at_free_index and call.whole) or another)
        return None if starts else call

    def at_free_index(self, choice: Choice, new: Fragment) -> Call | None:  # 2
        newest = choice.calls[-1] if choice.calls else None
        goes_on = newest and not newest.whole and not new.id and not new.name
        return newest if goes_on else None  # SGLang, LibreChat

    def at_held_index(self, choice: Choice, new: Fragment, call: Call) -> Call | None:  # 3
        new_id = bool(new.id and call.id)
        other_tool = call.arguments == call.input == "" and new.name != call.name
        if new_id and new.name and (call.whole or other_tool):
            return None
        if not new.id and self.starts_by_name(choice, new, call):
            return None
        says_more = new.text.strip(JSON_BLANKS) and not repeats(call.arguments, new.text)
        if not new.id and not new.name and says_more and call.whole and not choice.calls[-1].whole:
            return choice.calls[-1]  # SGLang
        if new_id or (not new.id and self.is_another_name(call, new)):
            self.problems.append("ambiguous_tool_call")
        return call

    def without_index(self, choice: Choice, new: Fragment) -> Call | None:  # 4
        call = choice.last_call
        if new.id or call is None or self.starts_by_name(choice, new, call):
            return None
        if len(choice.calls) > 1 or self.is_another_name(call, new):
            self.problems.append("ambiguous_tool_call")
        return call

    def starts_by_name(self, choice: Choice, new: Fragment, call: Call) -> bool:
        """Whether a name without an id starts a new call rather than repeats this one."""
        may_start = new.name and call.name and (call.whole or choice.named_now(call))
        same = not new.text or repeats(call.arguments or call.input, new.text)
        says_it_again = not choice.named_now(call) and new.name == call.name and same
        return bool(may_start) and not says_it_again

    def is_another_name(self, call: Call, new: Fragment) -> bool:
        has_text = call.arguments or call.input
        return bool(new.name and call.name not in ("", new.name) and has_text)

    def judge_arguments(self, choice: Choice) -> None:
        """Report arguments that are not JSON although nothing more is to come."""
        for call in choice.in_order() if choice.finish_reason else []:
            cut = choice.finish_reason == "length" and call is choice.in_order()[-1]
            if not (call.judged or cut or call.arguments == "" or is_complete(call.arguments)):
                self.problems.append("invalid_arguments")
            call.judged = True

    # ---- SPEC 5: usage ----

    def add_usage(self, _level: Level, _key: str, usage: Object) -> None:
        self.usage_came = True
        known = self.usage.known
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        counts = {name: integer(usage.get(name)) for name in names}
        came = [name for name, count in counts.items() if count is not None]
        fell = any(name in known and counts[name] < known[name] for name in came)
        half = len(came) < 3 and came not in ([], ["total_tokens"])
        put, rule = (self.put_larger, self.larger) if fell else (self.put, self.in_chunk)

        def details(level: Level, key: str, details: Object) -> None:
            names = ["audio_tokens", "cache_write_tokens", "cached_tokens", "image_tokens"]
            if key == "completion_tokens_details":
                predicted = ["accepted_prediction_tokens", "rejected_prediction_tokens"]
                names = ["audio_tokens", "reasoning_tokens", *predicted]
            names.append("text_tokens")
            self.take(details, level.below(key), dict.fromkeys(names, (int, put)), rule)

        table: Table = dict.fromkeys(names, (int, put))
        table["prompt_tokens_details"] = table["completion_tokens_details"] = (dict, details)
        self.take(usage, self.usage, table, rule)
        sum_known = self.sum_of_tokens()
        if (fell or half) and "total_tokens" in known and sum_known is not None:
            known["total_tokens"] = max(known["total_tokens"], sum_known)

    def sum_of_tokens(self) -> int | None:
        """Add up the two halves; None if one never came."""
        known = self.usage.known
        if "prompt_tokens" in known and "completion_tokens" in known:
            total: int = known["prompt_tokens"] + known["completion_tokens"]
            return total
        return None

    def any_usage(self) -> bool:
        x_groq = self.completion.extra.get("x_groq")
        stands_in = isinstance(x_groq, dict) and isinstance(x_groq.get("usage"), dict)
        return self.usage_came or stands_in

    def close_usage(self) -> None:
        if not self.any_usage():
            return
        if not self.usage_came:
            met = list(self.problems)
            self.stands_in = True
            self.add_usage(self.completion, "usage", self.completion.extra["x_groq"]["usage"])
            self.problems = met  # it was an unnamed field when it came
        if "total_tokens" not in self.usage.known and self.sum_of_tokens() is not None:
            self.usage.known["total_tokens"] = self.sum_of_tokens()
        self.completion.known["usage"] = self.usage

    # ---- SPEC 3 and 7: one field at its level ----

    def take(
        self,
        source: Object,
        level: Level,
        table: Table,
        rule: Rule,
        drop: Collection[str] = (),
        path: str = "",
    ) -> None:
        """Merge each field by the table; others, and those of a wrong type, by the rule."""
        for raw_key, value in source.items():
            key = self.heal(raw_key)
            if value is None or key in drop:
                continue
            if f"{path}.{key}" in self.collected:
                level.extra[key] = self.collect(key, level.extra.get(key), value)
                continue
            if key not in table:
                level.extra[key] = rule(key, level.extra.get(key), value)
                continue
            kind, merge = table[key]
            if is_a(kind, value):
                merge(level, key, value)
            elif kind is int and integer(value) is not None:
                self.problems.append("invalid_field")
                merge(level, key, integer(value))
            else:
                self.misfit(level, key, value, rule)

    def objects_in(self, level: Level, key: str, entries: list[Any], rule: Rule) -> list[Object]:
        """Return the entries that are objects; null is nothing, and others do not fit."""
        others = [e for e in entries if e is not None and not isinstance(e, dict)]
        if others:
            self.misfit(level, key, others, rule)
        return [entry for entry in entries if isinstance(entry, dict)]

    def misfit(self, level: Level, key: str, value: object, rule: Rule) -> None:
        self.problems.append("invalid_field")
        if not self.stands_in:
            level.extra[key] = rule(key, level.extra.get(key), value)

    def nothing(self, level: Level, key: str, value: object) -> None:
        """Do nothing: the field was read before its level was known."""

    def first(self, level: Level, key: str, value: object) -> None:
        value = self.heal(value)
        level.known[key] = level.known.get(key) or value

    def put(self, level: Level, key: str, value: object) -> None:
        level.known[key] = self.heal(value)

    def put_non_empty(self, level: Level, key: str, value: str) -> None:
        if value:
            self.put(level, key, value)

    def put_larger(self, level: Level, key: str, value: int) -> None:
        level.known[key] = max(level.known.get(key, value), value)

    def concat(self, level: Level, key: str, value: str) -> None:
        level.known[key] = level.text(key) + value

    def concat_name(self, level: Level, key: str, value: str) -> None:
        if as_fragment(value) != as_fragment(level.text(key)) or not value:
            self.concat(level, key, value)

    # ---- SPEC 3: the rules for any other field ----

    def in_chunk(self, key: str, old: Any, new: Any) -> Any:
        """Last; objects merge key by key."""
        return self.objects(old, new, self.in_chunk) if isinstance(new, dict) else self.heal(new)

    def in_choice(self, key: str, old: Any, new: Any) -> Any:
        """Last; lists extend; objects merge key by key."""
        if isinstance(new, list):
            return self.longer(old, new)
        return self.objects(old, new, self.in_choice) if isinstance(new, dict) else self.heal(new)

    def in_delta(self, key: str, old: Any, new: Any) -> Any:
        """Strings concat but for the labels."""
        if key in ("channel", "id", "type", "name", "format", "status", "signature"):
            return self.heal(new)
        if isinstance(new, str):
            return text_of(old) + new
        if key == "images" and isinstance(new, list):
            return self.longer(old, new)
        if key == "provider_specific_fields" and isinstance(new, dict):
            return self.objects(old, new, self.in_provider_fields)
        lists: dict[str, tuple[Find, Rule]] = {
            "reasoning_details": (of_same_type, self.in_reasoning_detail),
            "thinking_blocks": (unsigned, self.in_thinking_block),
            "executed_tools": (at_index, self.last),
        }
        if key in lists and isinstance(new, list):
            return self.entries(old, new, *lists[key])
        return self.in_object(key, old, new)

    def in_object(self, key: str, old: Any, new: Any) -> Any:
        """Inside an object of the delta: of the strings, only the text keys concat."""
        text_keys = ("text", "content", "summary", "thinking", "arguments", "input", "transcript")
        if key in text_keys and isinstance(new, str):
            return text_of(old) + new
        if isinstance(new, list):
            return self.entries(old, new, at_index, self.in_object)
        return self.objects(old, new, self.in_object) if isinstance(new, dict) else self.heal(new)

    def in_reasoning_detail(self, key: str, old: Any, new: Any) -> Any:
        if key in ("text", "summary") and isinstance(new, str):
            return text_of(old) + new
        return old if key == "type" and text_of(old) and not text_of(new) else self.heal(new)

    def in_thinking_block(self, key: str, old: Any, new: Any) -> Any:
        if key == "thinking" and isinstance(new, str):
            return text_of(old) + new
        return self.heal(new) if old is None or not is_empty(new) else old

    def in_provider_fields(self, key: str, old: Any, new: Any) -> Any:
        rule = self.collect if key == "citation" else self.in_object
        return rule(key, old, new)

    def collect(self, key: str, old: Any, new: Any) -> Any:
        return [*(old or []), self.heal(new)]

    def last(self, key: str, old: Any, new: Any) -> Any:
        return self.heal(new)

    def larger(self, key: str, old: Any, new: Any) -> Any:
        if is_a((int, float), old) and is_a((int, float), new):
            return max(old, new)
        return self.objects(old, new, self.larger) if isinstance(new, dict) else self.heal(new)

    def objects(self, old: Any, new: Object, rule: Rule) -> Object:
        """Merge key by key; a null stands until a value comes."""
        merged = {**old} if isinstance(old, dict) else {}
        for raw_key, value in new.items():
            key = self.heal(raw_key)
            before = merged.get(key)
            merged[key] = before if value is None else rule(key, before, value)
        return merged

    def entries(self, old: Any, new: list[Any], find: Find, rule: Rule) -> list[Any]:
        """Merge each entry into the one that it goes to, or append it."""
        merged = [*old] if isinstance(old, list) else []
        for entry in new:
            place = find(merged, entry)
            if place is None:
                merged.append(self.heal(entry))
            else:
                before = next(iter(merged[place:]), None)
                merged[place : place + 1] = [self.objects(before, entry, rule)]
        return merged

    def longer(self, old: Any, new: list[Any]) -> list[Any]:
        return [*(old if isinstance(old, list) else []), *self.heal(new)]

    # ---- SPEC 2: surrogates. What is concatenated is healed at the end, all else at once. ----

    def heal(self, value: Any) -> Any:
        """Copy a value with surrogate pairs joined, and report each half that is alone."""
        if isinstance(value, str):
            self.problems += ["lone_surrogate"] * len(LONE.findall(paired(value)))
            return healed(value)
        if isinstance(value, dict):
            return {self.heal(key): self.heal(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.heal(item) for item in value]
        return value


# ---- SPEC 3: which entry of a list another one goes to ----


def at_index(merged: list[Any], entry: Any) -> int | None:
    index = index_of(entry)
    places = [place for place, other in enumerate(merged) if index_of(other) == index]
    return None if index is None else [*places, len(merged)][0]


def of_same_type(merged: list[Any], detail: Any) -> int | None:
    """Find the detail of one index and type; one without a type goes to the newest there."""
    index = index_of(detail)
    places = [place for place, other in enumerate(merged) if index_of(other) == index]
    if index is not None and (type_ := healed(text_of(detail.get("type")))):
        places = [place for place in places if merged[place].get("type") == type_]
    return None if index is None else [len(merged), *places][-1]


def unsigned(merged: list[Any], block: Any) -> int | None:
    """Find the block before it that has no signature yet (LiteLLM)."""
    if kind_of(block) != "thinking":
        return None
    goes_on = kind_of(*merged[-1:]) == "thinking" and not merged[-1].get("signature")
    return len(merged) - bool(goes_on)


def neighbour(merged: list[Any], part: Any) -> int | None:
    kind = kind_of(part)
    return None if kind is None else len(merged) - (kind_of(*merged[-1:]) == kind)


def kind_of(part: Any = None) -> str | None:
    """Return the type of a part that neighbours of its type join."""
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if kind in ("text", "thinking") else None


LONE = re.compile("[\ud800-\udfff]")


def paired(text: str) -> str:
    if text.isascii():  # most is
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def healed(text: str) -> str:
    return LONE.sub("\ufffd", paired(text))


def as_fragment(text: str) -> str:
    """Heal a text that may go on: a first half at its end may still be completed."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return healed(text.removesuffix(half)) + half


# ---- What a value is ----


def is_a(kind: Kind, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def is_empty(value: object) -> bool:
    items = [*value.values()] if isinstance(value, dict) else value
    return not items or (isinstance(items, list) and items.count(None) == len(items))


def error_of(value: object) -> object:
    """Return the error in an object; null, false and empty values are not errors."""
    return (value.get("error") or None) if isinstance(value, dict) else None


def error_in(chunk: object) -> object:
    """Return the error in a chunk, even if it is where Groq puts it."""
    return error_of(chunk) or (error_of(chunk.get("x_groq")) if isinstance(chunk, dict) else None)


def error_object(value: object) -> object:
    """Return an object that contains an error, even if it is alone in a list."""
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    return value if error_of(value) else None


def is_chunk(value: object) -> bool:
    choices = value.get("choices") if isinstance(value, dict) else "none"
    entries = [] if choices is None else choices
    return isinstance(entries, list) and all(
        entry is None or isinstance(entry, dict) for entry in entries
    )


def is_own(value: object) -> bool:
    """Whether a value under another protocol's event name may be a chunk all the same."""
    if not isinstance(value, dict) or value.get("choices") is not None:
        return isinstance(value, dict)
    if value.get("usage") is not None:
        return not isinstance(value.get("type"), str)
    return error_of(value) is not None


def is_other_api(value: object) -> bool:
    """Whether a first event begins a stream of Anthropic Messages, OpenAI Responses or Gemini."""
    if not isinstance(value, dict) or value.get("choices") is not None:
        return False
    type_ = text_of(value.get("type"))
    begins = type_ == "message_start" or type_.startswith("response.")
    return begins or isinstance(value.get("candidates"), list)


JSON_BLANKS = " \t\r\n"


def as_json(value: object) -> str:
    """Write an object that came instead of a string as compact JSON."""
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value if isinstance(value, str) else compact


def read_json(text: str) -> object:
    """Parse JSON, BROKEN for anything else. Numbers are exact, however large, and never a bool."""
    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=finite)
    except (ValueError, ArithmeticError, RecursionError):
        return BROKEN


def number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)


def is_complete(arguments: str) -> bool:
    """Whether it is exactly one JSON value."""
    return read_json(arguments) is not BROKEN


def is_whole(arguments: str) -> bool:
    value = read_json(arguments)
    return value is None or isinstance(value, (dict, list))


def repeats(so_far: str, new: str) -> bool:
    """Whether a fragment is whole on its own and the same JSON again."""
    return is_whole(new) and read_json(so_far) == read_json(new)


def integer(value: object) -> int | None:
    """Read an integer, also `1.0` and "1"; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch("0|-?[1-9][0-9]*", value):
        return int(value)
    return value if isinstance(value, int) and is_a(int, value) else None


def index_of(entry: object) -> object:
    index = entry.get("index") if isinstance(entry, dict) else None
    return index if is_a(int, index) else None


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def brings_content(delta: Object) -> bool:
    content, calls = delta.get("content"), delta.get("tool_calls")
    fragments = calls if isinstance(calls, list) else [calls]
    objects = [*fragments, delta.get("function_call"), delta.get("audio")]
    texts = [delta.get(key) for key in ("content", "refusal", "reasoning", "reasoning_content")]
    return (
        any(map(text_of, texts))
        or (isinstance(content, list) and bool(content))
        or any(isinstance(each, dict) for each in objects)
    )
