"""The command: recorded or arriving streams in; completions as JSON, or their text, out.

Standard output has nothing but results. What was wrong goes to standard error; the exit code says
how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import msgspec

from ._accumulator import Accumulator
from ._logs.inputs import BLOCK, FILE_HELP, STDIN, CommandError, label_of, why_unread
from ._logs.recording import read_recording
from ._logs.rows import Keys
from ._logs.terminal import open_output, say
from ._merge.verdict import has_chunks
from ._result.outbound import text_of
from .batch import StreamResult
from .completion import ChatCompletion, Choice
from .errors import IncompleteStreamError, ServerError

__all__ = ["main"]

WHOLE, UNWRITABLE, WRONG, TRUNCATED, FAILED, UNREADABLE = 0, 1, 2, 3, 4, 5
# What shells report for a command ended by Ctrl-C, and for one whose output nobody reads any more.
INTERRUPTED, UNREAD = 128 + 2, 128 + 13

_COMMANDS = {"reduce": "._logs.command", "inspect": "._logs.inspect"}

_EPILOG = """\
exit codes, the highest of all streams:
  0  every stream is complete
  1  the output could not be written
  2  wrong usage
  3  a stream was cut off
  4  a server reported an error
  5  a file or a chunk could not be read, or a file contains no stream

other commands:
  accumulator reduce --help   reduce whole logs to a file
  accumulator inspect --help  show one stream as tables
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments or those of the process; return its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    # A file of that name is given as `./reduce`.
    name = given.pop(0) if given and given[0] in _COMMANDS else ""
    try:
        # Imported only here, so that other commands need not wait for it.
        command = import_module(_COMMANDS[name], __package__) if name else None
        parser = argparse.ArgumentParser(
            prog=f"accumulator {name}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        (command.add_arguments if command else _add_arguments)(parser)
        code: int = (command.run if command else _run_files)(parser.parse_args(given))
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except (CommandError, ImportError) as error:
        say(f"accumulator {name}: {error}")
        return getattr(error, "code", UNWRITABLE)
    except OSError as error:  # errors in reading are reported below
        path = error.filename
        if name == "inspect" and path is None:
            # Rich writes to Python's own file; flushing that at exit would report the error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return UNREAD
        where = f"accumulator {name}" if name else "standard output: cannot be written"
        say(f"{where}: {'' if path is None else f'{path}: '}{why_unread(error)}")
        return UNWRITABLE


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Read recorded streams and print each as one completion, as JSON."
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help=f"{FILE_HELP}, which is also read without FILE")
    text = "print the first choice's text as it arrives, then its tool calls, in place of JSON; on "
    add("--text", action="store_true", help=text + "a terminal also its reasoning")
    add("--version", action="store_true", help="print the version and exit")


def _run_files(arguments: argparse.Namespace) -> int:
    if arguments.version:
        from importlib import metadata  # noqa: PLC0415  # a sixth of the start of a command

        _write(f"accumulator {metadata.version('chunk-accumulator')}\n")
        return WHOLE
    if not arguments.files and sys.stdin is not None and sys.stdin.isatty():
        say("accumulator: name a file, or give a stream on standard input; see accumulator --help")
        return WRONG
    return max([_run(name, as_text=arguments.text) for name in arguments.files or [STDIN]])


def _run(name: str, *, as_text: bool) -> int:
    """Print the completions in a file, several as JSON Lines; return the exit code."""
    printer = _TextPrinter() if as_text else None
    found = read_recording(name, Keys(), heard=printer.print_arrived if printer else None)
    label, code = label_of(name), UNREADABLE if found.has_bad_rows else WHOLE
    if found.why is not None:
        say(f"{label}: cannot be read: {found.why}")
        code = UNREADABLE
    for id, (result, _) in sorted(found.streams.items()):
        if found.why is None or has_chunks(result.completion):
            of_stream = f"{label}, {id}" if id else label
            is_one = len(found.streams) == 1
            code = max(code, _print_result(of_stream, result, printer, indent=is_one))
    return code


def _print_result(
    label: str, result: StreamResult, printer: _TextPrinter | None, *, indent: bool
) -> int:
    """Print a completion, unless there is none; return the exit code."""
    completion = result.completion
    has_none = isinstance(result.error, IncompleteStreamError) and not has_chunks(completion)
    if printer is not None:
        printer.print_rest(label, completion)
    elif not has_none:
        text = completion.to_json()
        _write(f"{msgspec.json.format(text, indent=2) if indent else text}\n")
    code = _report(label, result)
    return UNREADABLE if has_none else code


def _report(label: str, result: StreamResult) -> int:
    """Report what was wrong with a stream; return its exit code."""
    for problem in result.problems:
        say(f"{label}: {problem.kind}: {problem}")
    others = sum(result.problem_counts.values()) - len(result.problems)
    if others:
        say(f"{label}: {others:,} more problems")
    error = result.error
    if error is None:
        return WHOLE
    if isinstance(error, ServerError):  # reported among the problems
        return FAILED
    if error.problem is None:
        say(f"{label}: {error}")
    return TRUNCATED if isinstance(error, IncompleteStreamError) else UNREADABLE


class _TextPrinter:
    """Prints the first choice once: on a terminal the reasoning, dimmed; the text; the calls."""

    def __init__(self) -> None:
        self._with_reasoning = sys.stdout is not None and sys.stdout.isatty()
        self._thought = 0  # characters of the reasoning that were printed
        self._printed = 0  # and of the text

    def print_arrived(self, accumulator: Accumulator, size: int) -> None:
        """Print what has arrived, if the last block was short.

        A short block has emptied the pipe, so there is time for a snapshot, which costs as much as
        all that was read.
        """
        if size < BLOCK:
            completion = accumulator.snapshot()
            # Before any other choice, one with a lower index may still come.
            if completion.choices and completion.choices[0].index == 0:
                self._print_new(completion.choices[0])

    def print_rest(self, label: str, completion: ChatCompletion) -> None:
        """Print what is left at the end, and end the line; report a refusal without a text."""
        if not completion.choices:
            return
        choice = completion.choices[0]
        self._print_new(choice)
        text = _text_of(choice)
        if (text or self._thought) and not text.endswith("\n"):
            _write("\n")
        for call in choice.message.tool_calls or ():
            _write(f"{call.name or call.id}({call._given})\n")
        if choice.message.refusal and not text:
            say(f"{label}: refusal: {choice.message.refusal}")
        self._thought = self._printed = 0  # another stream may follow

    def _print_new(self, choice: Choice) -> None:
        reasoning = choice.message.reasoning_content or choice.message.reasoning or ""
        text = _text_of(choice)
        if self._with_reasoning and len(reasoning) > self._thought:
            _write(f"\x1b[2m{reasoning[self._thought :]}\x1b[22m")  # dimmed
            self._thought = len(reasoning)
        if self._thought and text and not self._printed:
            _write("\n\n")
        _write(text[self._printed :])
        self._printed = len(text)


def _text_of(choice: Choice) -> str:
    return text_of(choice.message.content) or choice.text or ""  # the latter in a `text_completion`


def _write(text: str) -> None:
    with open_output() as output:
        output.write(text.encode())
