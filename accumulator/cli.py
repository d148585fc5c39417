"""The command: recorded or arriving streams in; completions as JSON, or their text, out.

Standard output holds results alone. What was wrong goes to standard error, how it ended to the
exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import BufferedReader
from types import ModuleType

import msgspec

from ._logs.inputs import READ_ERRORS, STDIN, open_stream
from ._logs.rows import BadRow, Keys, RowLines, is_row, why_unread
from ._logs.terminal import say, write_output
from .batch import StreamResult, reduce_sorted
from .completion import ChatCompletion, Message
from .errors import (
    AccumulatorError,
    IncompleteStreamError,
    LimitExceededError,
    Problem,
    ServerError,
)
from .streams import WrappedStream, wrap

__all__ = ["main"]

WHOLE, UNWRITABLE, WRONG, TRUNCATED, FAILED, UNREADABLE = 0, 1, 2, 3, 4, 5
# What shells report of a command ended by Ctrl-C, and of one whose output nobody reads any more.
INTERRUPTED, UNREAD = 128 + 2, 128 + 13

_BLOCK = 65536  # the most that a pipe holds

_BLANK = b" \t\r\n\xef\xbb\xbf"
_DIM, _UNDIM = "\x1b[2m", "\x1b[22m"
_COMMANDS = ("reduce", "inspect")

_EPILOG = """\
exit codes: 0 every stream is whole, 1 the output could not be written, 2 wrong usage, 3 a stream
was cut off, 4 a server reported an error, 5 a file or a chunk could not be read; the highest of all

other commands: accumulator reduce --help (whole logs), accumulator inspect --help (one stream)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments or those of the process; return its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        # A file of that name is `./reduce`.
        if given and given[0] in _COMMANDS:
            return _run_command(given[0], given[1:])
        return _run_files(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # of standard output; what goes wrong in reading is reported below
        if sys.stdout is not None:
            # Python flushes once more at its exit, and would report that, too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return UNREAD
        _tell("standard output", f"cannot be written: {error.strerror}")
        return UNWRITABLE


def _run_files(given: Sequence[str]) -> int:
    arguments = _parser().parse_args(given)
    if arguments.version:
        from importlib import metadata  # noqa: PLC0415  # a sixth of the start of a command

        _write(f"accumulator {metadata.version('chunk-accumulator')}\n")
        return WHOLE
    if not arguments.files and sys.stdin is not None and sys.stdin.isatty():
        say("accumulator: name a file, or give a stream on standard input; see accumulator --help")
        return WRONG
    if arguments.files and not os.path.exists(arguments.files[0]):
        _tell_command_like(arguments.files[0])
    return max([_run(name, as_text=arguments.text) for name in arguments.files or [STDIN]])


def _tell_command_like(name: str) -> None:
    """Report a command that somebody may have meant by a name that is no file's."""
    from difflib import get_close_matches  # noqa: PLC0415  # few runs need it

    for command in get_close_matches(name, _COMMANDS, 1):
        say(f"accumulator: there is no command {name!r}; did you mean {command!r}?")


def _run_command(name: str, given: Sequence[str]) -> int:
    command = _command(name)
    parser = argparse.ArgumentParser(
        prog=f"accumulator {name}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    code: int = command.run(parser.parse_args(given))
    return code


def _command(name: str) -> ModuleType:
    """Import a command's module: what it needs, the others need not wait for."""
    if name == "reduce":
        from ._logs import command  # noqa: PLC0415

        return command
    from ._logs import inspect  # noqa: PLC0415

    return inspect


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accumulator",
        description="Read streamed chat completions; print each as one completion, as JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a recorded stream: SSE, JSON Lines of chunks, or rows of id, seq and chunk; plain or "
        "gzip; - or none for standard input",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="print the text of the first choice as it arrives, and its tool calls, instead of "
        "JSON; on a terminal its reasoning, too",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


class _ReadError(Exception):
    """A file cannot be read, or not to its end."""


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    """Read a file as it arrives, in blocks of what a pipe holds at the time. Raises _ReadError."""
    try:
        while block := file.read1(_BLOCK):
            yield block
    except READ_ERRORS as error:
        raise _ReadError(f"cannot be read: {why_unread(error)}") from error


def _run(name: str, *, as_text: bool) -> int:
    """Read one file and print what it holds; return its exit code."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_stream(name))
            line = file.peek(1).lstrip(_BLANK).partition(b"\n")[0]
        except READ_ERRORS as error:
            _tell(name, f"cannot be read: {why_unread(error)}")
            return UNREADABLE
        if is_row(line, Keys()):
            return _run_rows(name, file, as_text=as_text)
        return _run_stream(name, file, as_text=as_text)


def _run_stream(name: str, file: BufferedReader, *, as_text: bool) -> int:
    """Print the one stream of a file; return the exit code."""
    printer = _TextPrinter()
    code = WHOLE
    with wrap(_blocks(file)) as stream:
        try:
            for block in stream:
                if as_text:
                    printer.print_arrived(stream, len(block))
        except _ReadError as error:
            _tell(name, str(error))
            code = UNREADABLE
    completion = stream.snapshot()
    if code == UNREADABLE and completion == ChatCompletion():
        return code
    if as_text:
        printer.print_rest(completion)
        _tell_refusal(name, completion)
    else:
        _write(msgspec.json.format(completion.to_json(), indent=2) + "\n")
    return max(code, _judge(name, stream))


def _judge(name: str, stream: WrappedStream[bytes]) -> int:
    """Report what was wrong with a stream; return its exit code."""
    _tell_problems(name, stream.problems, stream.problem_counts)
    try:
        _ = stream.completion
    except ServerError:
        return FAILED
    except IncompleteStreamError as error:
        _tell(name, f"truncated: {error}")
        return TRUNCATED
    except LimitExceededError as error:
        _tell(name, f"limit: {error}")
        return UNREADABLE
    except AccumulatorError as error:
        if error.problem is None:  # else it was reported above
            _tell(name, str(error))
        return UNREADABLE
    return WHOLE


def _tell_problems(name: str, problems: Sequence[Problem], counts: Mapping[str, int]) -> None:
    for problem in problems:
        _tell(name, f"{problem.kind}: {problem}")
    others = sum(counts.values()) - len(problems)
    if others:
        _tell(name, f"{others} more problems")


# --- rows -----------------------------------------------------------------------------------


def _run_rows(name: str, file: BufferedReader, *, as_text: bool) -> int:
    """Print the streams of a file of rows, which are held all at once: one as a document, several
    as JSON Lines. Return the exit code.
    """
    bad: list[BadRow] = []
    rows: list[tuple[str, int | None, bytes]] = []
    codes = [WHOLE]
    try:
        for some in RowLines(Keys(), bad.append).read(file):
            rows += zip(some.ids, some.seqs, some.chunks, strict=True)
    except READ_ERRORS as error:
        _tell(name, f"cannot be read: {why_unread(error)}")
        codes.append(UNREADABLE)
    for each in bad:
        _tell(name, f"line {each.line}: bad row: {each.why}")
        codes.append(UNREADABLE)
    # Sorting is stable: rows without a number stay as they came, behind those with one.
    rows.sort(key=lambda row: (row[0], row[1] is None, row[1] or 0))
    results = list(reduce_sorted(rows))
    for id, result in results:
        completion = result.completion
        if as_text:
            _TextPrinter().print_rest(completion)
            _tell_refusal(f"{name}, {id}", completion)
        elif len(results) == 1:
            _write(msgspec.json.format(completion.to_json(), indent=2) + "\n")
        else:
            _write(completion.to_json() + "\n")
        codes.append(_judge_result(f"{name}, {id}", result))
    return max(codes)


def _judge_result(name: str, result: StreamResult) -> int:
    """Report what was wrong with a stream of rows; return its exit code."""
    _tell_problems(name, result.problems, result.problem_counts)
    if result.status == "failed":
        return FAILED
    if result.limit is not None:
        _tell(name, f"limit: the stream passed the limit {result.limit}")
        return UNREADABLE
    if result.status == "truncated":
        _tell(name, "truncated: the stream stopped before its end")
        return TRUNCATED
    return WHOLE if result.is_whole else UNREADABLE


# --- text -----------------------------------------------------------------------------------


class _TextPrinter:
    """Prints the text of a stream's first choice, each part of it once: on a terminal the reasoning
    first, dimmed; at the end the tool calls.
    """

    def __init__(self) -> None:
        self._with_reasoning = sys.stdout is not None and sys.stdout.isatty()
        self._thought = 0  # characters of the reasoning that were printed
        self._printed = 0  # and of the text
        self._read = 0  # bytes
        self._unseen = 0  # bytes

    def print_arrived(self, stream: WrappedStream[bytes], size: int) -> None:
        """Print what has come with the last block.

        A look at the stream costs as much as all that was read. A short block has emptied the pipe,
        so there is time for one. After a full block more is waiting, and looking each time it has
        grown by a sixteenth keeps the cost of a large file linear.
        """
        self._read += size
        self._unseen += size
        if size < _BLOCK or self._unseen * 16 >= self._read:
            self._unseen = 0
            completion = stream.snapshot()
            # That the first choice is the first to come is not certain before the end.
            if completion.choices and completion.choices[0].index == 0:
                self._print_new(completion.choices[0].message)

    def print_rest(self, completion: ChatCompletion) -> None:
        """Print what is left at the end, and end the line."""
        if not completion.choices:
            return
        message = completion.choices[0].message
        self._print_new(message)
        text = _text_of(message)
        if (text or self._thought) and not text.endswith("\n"):
            _write("\n")
        for call in message.tool_calls or ():
            part = call.function or call.custom
            given = getattr(part, "arguments", None) or getattr(part, "input", None) or ""
            _write(f"{getattr(part, 'name', None) or call.id}({given})\n")

    def _print_new(self, message: Message) -> None:
        reasoning = message.reasoning_content or message.reasoning or ""
        text = _text_of(message)
        if self._with_reasoning and len(reasoning) > self._thought:
            _write(f"{_DIM}{reasoning[self._thought :]}{_UNDIM}")
            self._thought = len(reasoning)
        if self._thought and text and not self._printed:
            _write("\n\n")
        _write(text[self._printed :])
        self._printed = len(text)


def _text_of(message: Message) -> str:
    """Return the text of a message; of content in parts, that of its text parts."""
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _tell_refusal(name: str, completion: ChatCompletion) -> None:
    """Report a refusal that stands in place of a text."""
    message = completion.choices[0].message if completion.choices else None
    if message is not None and message.refusal and not _text_of(message):
        _tell(name, f"refusal: {message.refusal}")


def _write(text: str) -> None:
    write_output(text.encode())


def _tell(name: str, message: str) -> None:
    name = name if name.partition(",")[0] != STDIN else name.replace(STDIN, "standard input", 1)
    say(f"{name}: {message}")
