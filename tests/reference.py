"""Reduce a stream slowly and plainly: the rules of SPEC once more, as the judge of the package.

It shares nothing with the package. Where the two differ, one of them is wrong.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass
class Outcome:
    """Hold what a closed stream came to; `problems` are the kinds, in the order met."""

    completion: Object
    status: str
    problems: list[str]
    error: object | None = None


def reduce_body(body: bytes) -> Outcome:
    """Reduce a whole `text/event-stream` body."""
    reader = Reader()
    for line in split_lines(body):
        reader.sse_line(line)
    return reader.close()


def reduce_lines(body: bytes) -> Outcome:
    """Reduce a body whose lines are each a chunk, or a line of an event stream."""
    reader = Reader()
    for line in split_lines(body):
        reader.any_line(line)
    return reader.close()


def reduce_chunks(chunks: list[object]) -> Outcome:
    """Reduce JSON values; the string "[DONE]" ends them."""
    reducer = Reducer()
    for chunk in chunks:
        if chunk == "[DONE]":
            reducer.end()
        else:
            reducer.chunk(chunk)
    return reducer.outcome()


# ---- SPEC 2: framing ----


def split_lines(body: bytes) -> list[bytes]:
    """Split at CR, LF and CRLF; what stands after the last line end is a line unless empty."""
    *lines, rest = re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    return [*lines, rest] if rest else lines


class Reader:
    """Turn lines into events, and events into chunks."""

    def __init__(self) -> None:
        self.reducer = Reducer()
        self.event = b""
        self.data: list[bytes] = []

    def sse_line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            self.dispatch("malformed_json")
        elif name == b"data":
            self.data.append(value)
        elif name == b"event":
            self.event = value
        elif name == b"error" and not self.data and value.strip():  # llama.cpp
            self.error_event(self.decode(value))

    def any_line(self, line: bytes) -> None:
        if line.startswith(b"{") or line.strip() == b"[DONE]":
            self.dispatch("malformed_json")
            self.data = [line]
            self.dispatch("malformed_json")
        else:
            self.sse_line(line)

    def close(self) -> Outcome:
        self.dispatch("unterminated_event")
        return self.reducer.outcome()

    def dispatch(self, if_broken: str) -> None:
        data, event = b"\n".join(self.data), self.event
        self.data, self.event = [], b""
        if self.reducer.ended or not data.strip():
            return
        if data.strip() == b"[DONE]":
            self.reducer.end()
            return
        text = self.decode(data)
        if event == b"error":
            self.error_event(text)
        elif (value := parse(text)) is not BROKEN:
            self.reducer.chunk(value)
        elif any(isinstance(parse(line), dict) for line in text.split("\n")) or all(
            parse(line) is not BROKEN for line in text.split("\n")
        ):
            *lines, last = text.split("\n")  # a recorded log that lost its blank lines
            for line in lines:
                self.line_alone(line, "malformed_json")
            self.line_alone(last, if_broken)
        else:
            self.reducer.problem(if_broken)

    def line_alone(self, line: str, if_broken: str) -> None:
        value = parse(line)
        if line.strip() == "[DONE]":
            self.reducer.end()
        elif value is not BROKEN:
            self.reducer.chunk(value)
        elif line.strip():
            self.reducer.problem(if_broken)

    def error_event(self, text: str) -> None:
        value = parse(text)
        if value is BROKEN:
            self.reducer.fail(text)
        elif isinstance(value, dict) and value.get("error") is not None:
            self.reducer.chunk(value)
        else:
            self.reducer.fail(value)

    def decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.reducer.problem("invalid_utf8")
            return data.decode(errors="replace")


BROKEN = object()


def parse(text: str) -> object:
    """Parse JSON; BROKEN for what is none, and for the numbers that JSON does not have."""
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

    def below(self, key: str, always: tuple[str, ...] = ()) -> Level:
        level: Level = self.known.setdefault(key, Level(always=always))
        return level


@dataclass(eq=False)
class Call:
    index: int | None
    order: int
    level: Level = field(default_factory=Level)

    def text(self, function_key: str, custom_key: str) -> str:
        function = self.level.known.get("function", Level()).known.get(function_key)
        custom = self.level.known.get("custom", Level()).known.get(custom_key)
        return function or custom or ""

    @property
    def name(self) -> str:
        return as_fragment(self.text("name", "name"))

    @property
    def arguments(self) -> str:
        return self.text("arguments", "input")


@dataclass
class Choice:
    level: Level = field(default_factory=lambda: Level(always=("finish_reason", "logprobs")))
    message: Level = field(default_factory=lambda: Level(always=("content", "refusal")))
    calls: list[Call] = field(default_factory=list)
    last_call: Call | None = None


def plain(value: object) -> object:
    if isinstance(value, Level):
        value = {**dict.fromkeys(value.always), **value.extra, **value.known}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


# How one field merges: by a rule, or, if the API names it, by a type and what to do with it.
Rule = Callable[[str, Any, Any], Any]  # (key, the value so far or None, the new one)
Kind = type | tuple[type, ...]
Table = dict[str, tuple[Kind, Callable[[Level, str, Any], None]]]


class Reducer:
    """Merge chunks into one completion."""

    def __init__(self) -> None:
        self.completion = Level(known={"object": "chat.completion"})
        self.choices: dict[int, Choice] = {}
        self.usage = Level()
        self.usage_came = False
        self.last_id = ""
        self.problems: list[str] = []
        self.oddities: list[str] = []  # of this chunk; on record after its misfits
        self.ended = self.failed = False
        self.error: object = None

    # ---- SPEC 6: how a stream ends ----

    def end(self) -> None:
        self.ended = True

    def fail(self, error: object) -> None:
        if not self.ended:
            self.ended = self.failed = True
            self.error = self.heal(error)
            self.problems.append("server_error")

    def problem(self, kind: str) -> None:
        if not self.ended:
            self.problems.append(kind)

    def outcome(self) -> Outcome:
        all_finished = bool(self.choices) and all(
            choice.level.known.get("finish_reason") for choice in self.choices.values()
        )
        if self.failed:
            status = "failed"
        else:
            status = "complete" if self.ended or all_finished else "truncated"
        for choice in self.choices.values():
            calls = sorted(choice.calls, key=lambda call: call.order)
            if calls:
                choice.message.known["tool_calls"] = [call.level for call in calls]
            choice.level.known["message"] = choice.message
        in_order = [choice.level for _, choice in sorted(self.choices.items())]
        self.completion.known["choices"] = in_order
        self.close_usage()
        completion: Any = self.heal(plain(self.completion))  # what was concatenated, at last
        return Outcome(completion, status, self.problems, self.error)

    # ---- SPEC 3: the fields of each level that the API names ----

    def chunk(self, chunk: Any) -> None:
        if self.ended:
            return
        if not is_chunk(chunk):
            self.problems.append("invalid_chunk")
            if isinstance(chunk, list) and len(chunk) == 1:
                [chunk] = chunk
            if isinstance(chunk, dict) and chunk.get("error") is not None:
                self.fail(chunk["error"])
            return
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
        self.take(chunk, self.completion, table, self.in_chunk, drop)
        for position, entry in enumerate(chunk.get("choices") or []):
            self.choice(position, entry)
        self.problems += self.oddities
        self.oddities = []
        if chunk.get("error") is not None:
            self.fail(chunk["error"])

    def chunk_id(self, level: Level, key: str, id_: str) -> None:
        self.first(level, key, id_)
        id_ = healed(id_)
        if id_ and self.last_id not in ("", id_):
            self.oddities.append("id_changed")
        self.last_id = id_ or self.last_id

    def choice(self, position: int, entry: Object) -> None:
        read = integer(entry.get("index"))
        index = position if read is None else read
        choice = self.choices.setdefault(index, Choice())
        choice.level.known["index"] = index
        finished = bool(choice.level.known.get("finish_reason"))
        # Perplexity sends the whole message so far beside each delta.
        source, other = ("message", "delta") if entry.get("delta") is None else ("delta", "message")

        def delta(_level: Level, _key: str, delta: Object) -> None:
            if finished and brings_content(delta):
                self.oddities.append("content_after_finish")
            self.delta(choice, delta)

        table: Table = {
            "index": (int, self.nothing),
            "finish_reason": (str, self.put_non_empty),
            "logprobs": (dict, self.logprobs),
            "usage": (dict, self.add_usage),  # Moonshot
            source: (dict, delta),
        }
        self.take(entry, choice.level, table, self.in_choice, drop=("obfuscation", other))

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
            token = Level()
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
        def tool_calls(level: Level, key: str, entries: list[Any]) -> None:
            for entry in self.objects_in(level, key, entries, self.in_delta):
                self.tool_call(choice, entry)

        table: Table = {
            "role": (str, self.first),
            "content": ((str, list), self.content),
            "refusal": (str, self.concat),
            "reasoning": (str, self.concat),
            "reasoning_content": (str, self.concat),
            "tool_calls": (list, tool_calls),
            "function_call": (dict, self.function_call),
            "audio": (dict, self.audio),
            "annotations": (list, self.annotations),
        }
        self.take(delta, choice.message, table, self.in_delta)

    def content(self, level: Level, key: str, content: str | list[object]) -> None:
        before = level.known.get(key)
        if isinstance(before, list) or isinstance(content, list):
            new = content if isinstance(content, list) else [content]
            level.known[key] = self.parts(before, new)
        else:
            self.concat(level, key, content)

    def parts(self, before: Any, new: list[Any]) -> list[Any]:
        merged = before if isinstance(before, list) else []
        if isinstance(before, str):
            new = [before, *new]
        for given in new:
            part = {"type": "text", "text": given} if isinstance(given, str) else given
            kind = part.get("type") if isinstance(part, dict) else None
            if given == "":
                continue
            if kind not in ("text", "thinking"):
                merged = [*merged, self.heal(part)]
            elif merged and isinstance(merged[-1], dict) and merged[-1].get("type") == kind:
                merged = [*merged[:-1], self.objects(merged[-1], part, self.in_part)]
            else:
                merged = [*merged, self.objects(None, part, self.in_part)]
        return merged

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
            "name": (str, self.concat),
            "arguments": ((str, dict, list), self.concat_json),
        }
        self.take(fragment, level.below(key), table, self.in_object)

    # ---- SPEC 4: tool calls ----

    def tool_call(self, choice: Choice, entry: Object) -> None:
        call = choice.last_call = self.find_call(choice, entry)
        table: Table = {
            "index": (int, self.nothing),
            "id": (str, self.first),
            "type": (str, self.first),
            "function": (dict, self.tool),
            "custom": (dict, self.tool),
        }
        self.take(entry, call.level, table, self.in_delta)

    def tool(self, level: Level, key: str, fragment: Object) -> None:
        table: Table = {
            "name": (str, self.concat_name),
            "arguments" if key == "function" else "input": ((str, dict, list), self.concat_json),
        }
        self.take(fragment, level.below(key), table, self.in_delta)

    def find_call(self, choice: Choice, entry: Object) -> Call:
        calls = choice.calls
        index, id_ = integer(entry.get("index")), healed(text_of(entry.get("id")))
        tools = [tool for key in ("function", "custom") if isinstance(tool := entry.get(key), dict)]
        names = (as_fragment(text_of(tool.get("name"))) for tool in tools)
        name = next(filter(None, names), "")

        def new_call() -> Call:
            calls.append(Call(index, order=len(calls) if index is None else index))
            return calls[-1]

        def latest(of: list[Call]) -> Call | None:
            return of[-1] if of else None

        holder = latest([call for call in calls if index is not None and call.index == index])
        same_id = [call for call in calls if id_ and call.level.known.get("id") == id_]
        if same_id:  # 1
            call = holder if holder and holder in same_id else same_id[-1]
            at_new_index = index is not None and holder is None
            return new_call() if at_new_index and name and is_complete(call.arguments) else call
        if index is not None and holder is None:  # 2
            return new_call()
        if holder is not None:  # 3
            new_id = bool(id_ and holder.level.known.get("id"))
            other_tool = holder.arguments == "" and name != holder.name
            if new_id and name and (is_complete(holder.arguments) or other_tool):
                return new_call()
            other_name = name and holder.name not in ("", name) and holder.arguments
            if new_id or (not id_ and other_name):
                self.oddities.append("ambiguous_tool_call")
            return holder
        if id_ or choice.last_call is None:  # 4
            return new_call()
        call = choice.last_call
        if len(calls) > 1 or (name and call.name not in ("", name) and call.arguments):
            self.oddities.append("ambiguous_tool_call")
        return call

    # ---- SPEC 5: usage ----

    def add_usage(self, _level: Level, _key: str, usage: Object) -> None:
        self.usage_came = True
        table: Table = {
            "prompt_tokens": (int, self.put_larger),
            "completion_tokens": (int, self.put_larger),
            "total_tokens": (int, self.put_larger),
            "prompt_tokens_details": (dict, self.details),
            "completion_tokens_details": (dict, self.details),
        }
        self.take(usage, self.usage, table, self.larger)

    def details(self, level: Level, key: str, details: Object) -> None:
        names = ["audio_tokens", "cached_tokens"]
        if key == "completion_tokens_details":
            predicted = ["accepted_prediction_tokens", "rejected_prediction_tokens"]
            names = ["audio_tokens", "reasoning_tokens", *predicted]
        table: Table = dict.fromkeys(names, (int, self.put_larger))
        self.take(details, level.below(key), table, self.larger)

    def close_usage(self) -> None:
        x_groq = self.completion.extra.get("x_groq")
        usage = x_groq.get("usage") if isinstance(x_groq, dict) else None
        if isinstance(usage, dict) and not self.usage_came:
            met = list(self.problems)
            self.add_usage(self.completion, "usage", usage)
            self.problems = met  # it was an unnamed field when it came
        known = self.usage.known
        if "prompt_tokens" in known and "completion_tokens" in known:
            least = known["prompt_tokens"] + known["completion_tokens"]
            known["total_tokens"] = max(known.get("total_tokens", 0), least)
        if self.usage_came:
            self.completion.known["usage"] = self.usage

    # ---- SPEC 3 and 7: one field at its level ----

    def take(
        self, source: Object, level: Level, table: Table, rule: Rule, drop: Collection[str] = ()
    ) -> None:
        """Take in each field by the table; others, and those of a wrong type, by the rule."""
        for raw_key, value in source.items():
            key = self.heal(raw_key)
            if value is None or key in drop:
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
        """Give the entries that are objects; null is nothing, and others do not fit."""
        others = [e for e in entries if e is not None and not isinstance(e, dict)]
        if others:
            self.misfit(level, key, others, rule)
        return [entry for entry in entries if isinstance(entry, dict)]

    def misfit(self, level: Level, key: str, value: object, rule: Rule) -> None:
        self.problems.append("invalid_field")
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
        level.known[key] = text_of(level.known.get(key)) + value

    def concat_name(self, level: Level, key: str, value: str) -> None:
        if as_fragment(value) != as_fragment(text_of(level.known.get(key))) or not value:
            self.concat(level, key, value)

    def concat_json(self, level: Level, key: str, value: object) -> None:
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        self.concat(level, key, value if isinstance(value, str) else compact)

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
        if key in ("images", "annotations") and isinstance(new, list):
            return self.longer(old, new)
        if key == "reasoning_details" and isinstance(new, list):
            return self.by_index(old, new, self.in_reasoning_detail)
        if key == "executed_tools" and isinstance(new, list):
            return self.by_index(old, new, self.last)
        return self.in_object(key, old, new)

    def in_object(self, key: str, old: Any, new: Any) -> Any:
        """Inside an object of the delta: of the strings, only the text keys concat."""
        text_keys = ("text", "content", "summary", "thinking", "arguments", "input", "transcript")
        if key in text_keys and isinstance(new, str):
            return text_of(old) + new
        if isinstance(new, list):
            return self.by_index(old, new, self.in_object)
        return self.objects(old, new, self.in_object) if isinstance(new, dict) else self.heal(new)

    def in_reasoning_detail(self, key: str, old: Any, new: Any) -> Any:
        if key in ("text", "summary") and isinstance(new, str):
            return text_of(old) + new
        return self.heal(new)

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

    def by_index(self, old: Any, new: list[Any], rule: Rule) -> list[Any]:
        """Merge entries of the same integer `index`, append the others."""
        merged = [*old] if isinstance(old, list) else []
        for entry in new:
            index = index_of(entry)
            places = [i for i, other in enumerate(merged) if index_of(other) == index]
            if index is None:
                merged.append(self.heal(entry))
            elif places:
                merged[places[0]] = self.objects(merged[places[0]], entry, rule)
            else:
                merged.append(self.objects(None, entry, rule))
        return merged

    def longer(self, old: Any, new: list[Any]) -> list[Any]:
        return [*(old if isinstance(old, list) else []), *self.heal(new)]

    # ---- SPEC 2: surrogates. What is concatenated is healed at the end, all else at once. ----

    def heal(self, value: Any) -> Any:
        """Copy a value, surrogate pairs joined, with a problem for each half that is alone."""
        if isinstance(value, str):
            self.problems += ["lone_surrogate"] * len(LONE.findall(paired(value)))
            return healed(value)
        if isinstance(value, dict):
            return {self.heal(key): self.heal(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.heal(item) for item in value]
        return value


LONE = re.compile("[\ud800-\udfff]")


def paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def healed(text: str) -> str:
    return LONE.sub("\ufffd", paired(text))


def as_fragment(text: str) -> str:
    """Heal a text that more may follow: a first half at its end is none yet."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return healed(text.removesuffix(half)) + half


# ---- What a value is ----


def is_a(kind: Kind, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def is_chunk(value: object) -> bool:
    choices = value.get("choices") if isinstance(value, dict) else "none"
    entries = [] if choices is None else choices
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def is_complete(arguments: str) -> bool:
    """Whether it is exactly one JSON value."""
    try:
        json.loads(arguments, parse_int=str, parse_float=str, parse_constant=finite)
    except (ValueError, RecursionError):
        return False
    return True


def integer(value: object) -> int | None:
    """Read an integer, also `1.0` and "1"; None for what is none."""
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
    texts = [delta.get(key) for key in ("content", "refusal", "reasoning", "reasoning_content")]
    content, calls = delta.get("content"), delta.get("tool_calls")
    objects = [delta.get(key) for key in ("function_call", "audio")]
    return (
        any(isinstance(text, str) and text for text in texts)
        or (isinstance(content, list) and bool(content))
        or (isinstance(calls, list) and any(isinstance(call, dict) for call in calls))
        or any(isinstance(value, dict) for value in objects)
    )
