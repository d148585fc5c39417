"""The command: recorded or arriving streams in; completions as JSON, or their text, out.

Standard output holds results alone. What was wrong goes to standard error, how it ended to the
exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

import msgspec

from ._logs.terminal import say, write_output
from .completion import ChatCompletion
from .errors import AccumulatorError, IncompleteStreamError, LimitExceededError, ServerError
from .streams import WrappedStream, wrap

__all__ = ["main"]

WHOLE, UNWRITABLE, TRUNCATED, FAILED, UNREADABLE = 0, 1, 3, 4, 5
# What shells report of a command ended by Ctrl-C, and of one whose output nobody reads any more.
INTERRUPTED, UNREAD = 128 + 2, 128 + 13

_BLOCK = 65536  # the most that a pipe holds

_COMMANDS = ("reduce", "inspect")

_EPILOG = """\
exit codes: 0 every stream is whole, 2 wrong usage, 3 a stream was cut off, 4 a server reported an
error, 5 a file or a chunk could not be read; of several files, the worst

whole logs: accumulator reduce --help; one stream to look at: accumulator inspect --help
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
    return max([_run(name, as_text=arguments.text) for name in arguments.files or ["-"]])


def _run_command(name: str, given: Sequence[str]) -> int:
    command = _command(name)
    parser = argparse.ArgumentParser(
        prog=f"accumulator {name}",
        description=command.__doc__,
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
        description="Read streamed chat completions and print each as the one completion it is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a recorded stream, SSE or JSON Lines; '-' or none for standard input",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="print the text of the first choice as it arrives, in place of JSON",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


class _ReadError(Exception):
    """A file cannot be read, or not to its end."""


def _blocks(name: str) -> Iterator[bytes]:
    """Read a file as it arrives, whatever the pipe it comes through holds at a time."""
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            while block := file.read1(_BLOCK):
                yield block
    except OSError as error:
        raise _ReadError(f"cannot be read: {error.strerror}") from error


def _run(name: str, *, as_text: bool) -> int:
    """Read one file and print what it holds; return its exit code."""
    printer = _TextPrinter()
    code = WHOLE
    with wrap(_blocks(name)) as stream:
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
    else:
        _write(msgspec.json.format(completion.to_json(), indent=2) + "\n")
    return max(code, _judge(name, stream))


def _judge(name: str, stream: WrappedStream[bytes]) -> int:
    """Tell what was wrong with a stream that was read; return its exit code."""
    for problem in stream.problems:
        _tell(name, f"{problem.kind}: {problem}")
    untold = sum(stream.problem_counts.values()) - len(stream.problems)
    if untold:
        _tell(name, f"{untold} more problems")
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
        if error.problem is None:  # nor was it told above
            _tell(name, str(error))
        return UNREADABLE
    return WHOLE


class _TextPrinter:
    """Prints the text of a stream's first choice, each part of it once."""

    def __init__(self) -> None:
        self._printed = 0  # characters
        self._read = 0  # bytes
        self._unseen = 0  # bytes

    def print_arrived(self, stream: WrappedStream[bytes], size: int) -> None:
        """Print what has come with the last block.

        To look costs in proportion to all that was read. A short block has emptied the pipe, so
        there is time to look. After a full one more is waiting, and looking each time it has grown
        by a sixteenth keeps the cost of a large file linear.
        """
        self._read += size
        self._unseen += size
        if size < _BLOCK or self._unseen * 16 >= self._read:
            self._unseen = 0
            completion = stream.snapshot()
            # That the first choice is the first to come is not certain before the end.
            if completion.choices and completion.choices[0].index == 0:
                self._print_new(_first_text(completion))

    def print_rest(self, completion: ChatCompletion) -> None:
        """Print what is left at the end, and end the line."""
        text = _first_text(completion)
        self._print_new(text)
        if text and not text.endswith("\n"):
            _write("\n")

    def _print_new(self, text: str) -> None:
        _write(text[self._printed :])
        self._printed = len(text)


def _first_text(completion: ChatCompletion) -> str:
    """Give the text of the first choice; of content in parts, that of its text parts."""
    content = completion.choices[0].message.content if completion.choices else None
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _write(text: str) -> None:
    write_output(text.encode())


def _tell(name: str, message: str) -> None:
    say(f"{'standard input' if name == '-' else name}: {message}")
