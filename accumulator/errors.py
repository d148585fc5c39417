"""What can go wrong: a `Problem` is recorded, an exception is raised to the caller."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Literal, get_args

from attrs import frozen

from ._result.typed_json import ParseError as ParseError  # noqa: PLC0414  # users import it here
from .completion import ChatCompletion

ProblemKind = Literal[
    "malformed_json",
    "invalid_chunk",
    "server_error",
    "invalid_field",
    "id_changed",
    "content_after_finish",
    "invalid_utf8",
    "lone_surrogate",
    "unterminated_event",
    "ambiguous_tool_call",
    "arguments_after_end",
    "invalid_arguments",
    "no_finish_reason",
    "foreign_event",
    "other_api",
]
PROBLEM_KINDS: tuple[ProblemKind, ...] = get_args(ProblemKind)

# After one of these, part of what the server meant to say is missing from the completion (SPEC 7).
LOSSY_KINDS: frozenset[ProblemKind] = frozenset({"malformed_json", "invalid_chunk", "server_error"})


@frozen
class Problem:
    """Records one thing that a server did wrong (SPEC section 7).

    `event` counts the stream's events from 1. `offset` is the byte of the body at which that event
    starts, or None if chunks came without their bytes. `path` is the JSON path of the field at
    fault, if it is one field. `detail` is what was found: the server's error object, the odd
    value, or the start of an unreadable text.

    If nothing is missing because of a problem, there is only one of each kind and path: `count`
    says how often it happened, and everything else describes the first time.
    """

    kind: ProblemKind
    message: str
    event: int
    offset: int | None = None
    path: str | None = None
    detail: object = None
    count: int = 1

    def __str__(self) -> str:
        byte = "" if self.offset is None else f", byte {self.offset}"
        path = "" if self.path is None else f", {self.path}"
        return f"event {self.event}{byte}{path}: {self.message}"


class AccumulatorError(Exception):
    """The base class of everything that this package raises about a stream.

    `partial` is the completion as far as it arrived, `problems` is what went wrong on the way, and
    `problem` is the one that raised, if it was one.
    """

    def __init__(
        self,
        message: str,
        *,
        partial: ChatCompletion | None = None,
        problems: Sequence[Problem] = (),
        problem: Problem | None = None,
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.problem = problem

    # An exception is pickled and copied by its `args`, which do not include keyword arguments.
    def __reduce__(self) -> tuple[object, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # what pickle itself uses


class DecodeError(AccumulatorError):
    """A chunk could not be read, so content is missing."""


class IncompleteStreamError(AccumulatorError):
    """The stream stopped before `[DONE]` and before every choice had its finish reason, or it
    contained no chunk at all. The message says which, and what arrived.
    """


class ServerError(AccumulatorError):
    """The server sent an error instead of the rest; `error` is the error object as it came."""

    def __init__(
        self,
        message: str,
        *,
        error: object,
        partial: ChatCompletion | None = None,
        problems: Sequence[Problem] = (),
        problem: Problem | None = None,
    ) -> None:
        super().__init__(message, partial=partial, problems=problems, problem=problem)
        self.error = error


class LimitExceededError(AccumulatorError):
    """The stream passed a bound of `Limits`; `limit` names it, `bound` is its value."""

    def __init__(
        self,
        limit: str,
        bound: int,
        *,
        partial: ChatCompletion | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(
            f"the stream passed the limit {limit}={bound}", partial=partial, problems=problems
        )
        self.limit = limit
        self.bound = bound


class CheckpointError(ValueError):
    """The bytes are not a checkpoint that can be resumed: they are damaged, cut off, from another
    version, or were written under other rules.
    """
