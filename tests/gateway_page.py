"""The gateways of docs/gateway.md, as the page has them, on a real socket."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import on_a_socket

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gateway.md"
# What the page defines, as opposed to what it tries out.
_MAKES = (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef, ast.AsyncFunctionDef)


@contextmanager
def running(
    upstream: str, monkeypatch: pytest.MonkeyPatch, app: str = "app", read_to_end: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Run an app of the page; gives its base URL, and the lines that it prints."""
    printed: list[str] = []
    page: dict[str, Any] = {"print": lambda *args: printed.append(" ".join(map(str, args)))}
    monkeypatch.setenv("OPENAI_BASE_URL", upstream)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    code = "\n".join(re.findall(r"(?<!-->\n)^```python\n(.+?)^```$", PAGE.read_text(), re.M | re.S))
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if isinstance(node, _MAKES)]
    exec(compile(tree, str(PAGE), "exec"), page)
    # The other app records what it taps.
    on_end = page["record"] if app == "app" else lambda end, scope: None
    page[app].add_middleware(page["CompletionMiddleware"], on_end=on_end, read_to_end=read_to_end)
    clients = [each for each in page.values() if isinstance(each, httpx.AsyncClient)]
    with on_a_socket(page[app], *clients) as origin:
        yield f"{origin}/v1", printed
