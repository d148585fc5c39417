"""The gates, with one copy of each command. `.ci/run` runs all of them, and so does plain `nox`.

`nox -s lint types` runs two; `nox -l` lists them. The sessions that test the wheel expect it in
`dist/`, where `nox -s package` puts it.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
# uv makes the environments if it is installed beside nox; otherwise venv and pip do.
nox.options.default_venv_backend = "uv|venv"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

ROOT = Path(__file__).parent
# DuckDB, which the extra `logs` needs, has no free-threaded wheel; ci.yml tests without it.
PYTHONS = [
    version
    for version in nox.project.python_versions(nox.project.load_toml("pyproject.toml"))
    if not version.endswith("t")
]
EXTRAS = "cli,logs,partial"
# One Python tries all examples and rows of each property, and the slow tests; the others look for
# differences between Pythons, for which a few examples are enough.
THOROUGH, COVERED = "3.13", "3.12"
BRIEF = ("--hypothesis-profile=brief", "-m", "not costs and not spark and not many")
RECORDING = "tests/recordings/weather-tool-call.sse"


# `.ci/run` starts the sessions in this order, two at a time: first the slowest, and `package`,
# whose wheel others need.
@nox.session(python=COVERED)
def coverage(session: nox.Session) -> None:
    """Run the suite on the tree; list each line and branch of the package that it missed.

    Tests that measure costs would measure the cost of tracing, and a line that only one example of
    hundreds reaches does not count as covered. Tracing takes three times as long.
    """
    session.install("-q", "-e", f".[test,{EXTRAS}]")
    session.run("pytest", "-q", "--cov", *BRIEF, *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist, and the wheel from it; check what is in them."""
    session.install("-q", "--group", "package")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.run("check-wheel-contents", str(wheel()))
    with zipfile.ZipFile(wheel()) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "accumulator").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if packed != sources:
        session.error(f"wheel and tree differ in {sorted(packed ^ sources)}")


# The suite runs once on each Python: `lowest` takes the oldest, `coverage` takes 3.12, and README's
# tests, on these machines, take 3.11.
@nox.session(python=[version for version in PYTHONS[:1:-1] if version != COVERED])
def tests(session: nox.Session) -> None:
    """Test the wheel on each Python; one of them tries everything."""
    test_wheel(session)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Test the wheel with the lowest versions of its dependencies that it allows."""
    bounds = [
        re.sub(r">=([\w.]+)$", r"==\1", requirement)
        for requirement in nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    ]
    if not all("==" in bound for bound in bounds):
        session.error(f"a dependency needs a lower bound and nothing else: {bounds}")
    test_wheel(session, *bounds)


@nox.session
def spark(session: nox.Session) -> None:
    """Run a real Spark, which needs Java."""
    session.install("-q", "-e", ".[test,spark]")
    session.run("pytest", "-q", "-m", "spark", *session.posargs)


@nox.session
def live(session: nox.Session) -> None:
    """Ask a real llama.cpp server, whose tiny model is written at run time."""
    session.install("-q", "-e", ".[test]", "--group", "live")
    session.run("pytest", "-q", "tests/live", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with three checkers, and that every public name has one."""
    # Not editable, so that pyright verifies the package as a user has it.
    session.install("-q", f".[test,{EXTRAS}]", "--group", "types")
    session.run("mypy")
    # Otherwise a pyrightconfig.json in a parent folder would take precedence.
    session.run("pyright", "--project", ".")
    session.run("pyright", "--verifytypes", "accumulator", "--ignoreexternal")
    session.run("ty", "check", "tests/typing")


@nox.session
def instructions(session: nox.Session) -> None:
    """Count the instructions of the benchmarks, if valgrind is installed."""
    session.install("-q", ".", "-r", "benchmarks/requirements.txt")
    session.run("python", "benchmarks/instructions.py", "--check")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors."""
    session.install("-q", ".[docs]")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "docs", "build/docs", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz for a moment; fuzz/README.md says how to search longer by hand."""
    session.install("-q", "-e", ".[test,fuzz]")
    session.run("pytest", "-q", "tests/test_fuzz.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code and the safety of the workflows."""
    session.install("-q", "--group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("zizmor", "--offline", "--quiet", "--no-progress", ".github")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    asked = re.findall(r"session: \[([\w, ]+)\]", workflow)
    asked += re.findall(r"(?:session:|nox -s) (\w+)", workflow)
    unknown = {name for names in asked for name in names.split(", ")} - globals().keys()
    if unknown:
        session.error(f"ci.yml asks for sessions that do not exist: {sorted(unknown)}")


def wheel() -> Path:
    """Return the path of the one wheel that was built."""
    [found] = (ROOT / "dist").glob("*.whl")
    return found


def test_wheel(session: nox.Session, *bounds: str) -> None:
    """Test the wheel in a folder from which the source tree cannot be imported.

    The wheel is tried alone first, because the tests' own requirements would supply a dependency
    that it forgot to declare.
    """
    room = Path(session.create_tmp()) / "room"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, room / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, room)
    # Tests read the recorded streams beside the checkout, if there are any.
    shared = ROOT.parent / "shared"
    if shared.is_dir() and not room.parent.joinpath("shared").exists():
        room.parent.joinpath("shared").symlink_to(shared)
    built = wheel()
    session.chdir(room)
    session.install("-q", str(built), *bounds)
    session.run("python", "-W", "error", "tests/import_everything.py")
    session.run("accumulator", RECORDING, silent=True)
    session.install("-q", f"{built}[test,{EXTRAS}]", *bounds)
    selection = ("-m", "not spark") if session.python == THOROUGH else BRIEF
    session.run("pytest", "-q", *selection, *session.posargs)
