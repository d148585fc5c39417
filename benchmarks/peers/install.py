"""The environments of the peers: one venv for each of Python's, one folder for Node's."""

import shutil
import subprocess
import sys
from pathlib import Path

from peers import Peer

HERE = Path(__file__).resolve().parent
# The peers are asked for one thing; none of them is to phone home meanwhile.
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "false",
    "PYTHONWARNINGS": "ignore",
}


def command_of(peer: Peer, cache: Path) -> list[str]:
    """Install what a peer needs, unless it is there, and return the command that runs it."""
    names = [package.partition("==")[0].partition("[")[0] for package in peer.packages]
    arguments = [peer.name, *names]
    if peer.language == "node":
        return ["node", str(node_folder(cache) / "adapters" / "_harness.mjs"), *arguments]
    python = venv(cache / peer.name, peer.packages)
    return [str(python), "-I", str(HERE / "adapters" / "_harness.py"), *arguments]


def node_version() -> str:
    """Return the version of Node, or that there is none."""
    try:
        done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    except OSError:
        return "none"
    return done.stdout.strip().removeprefix("v")


def venv(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Make a virtual environment with the pinned requirements; return its interpreter."""
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = "\n".join((sys.version, *requirements, ""))
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing {folder.name}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *requirements], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def node_folder(cache: Path) -> Path:
    """Make a folder with the pinned packages and, as Node looks upwards, the adapters in it."""
    folder = cache / "node"
    stamp = folder / "installed.txt"
    wanted = (HERE / "package-lock.json").read_text(encoding="utf-8")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print("installing node packages", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        subprocess.run(["npm", "ci", "--silent", "--no-fund", "--no-audit"], cwd=folder, check=True)
        stamp.write_text(wanted, encoding="utf-8")
    shutil.copytree(
        HERE / "adapters", folder / "adapters", dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.py", "__pycache__"),
    )  # fmt: skip
    return folder
