"""Who is compared, in which form each takes a stream, and what its result has room for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cases import Case
from judge import ENVELOPE, Room

ADAPTERS = Path(__file__).resolve().parent / "adapters"
USAGE = ("usage.prompt_tokens", "usage.completion_tokens", "usage.total_tokens")
CACHED = "usage.prompt_tokens_details.cached_tokens"
REASONED = "usage.completion_tokens_details.reasoning_tokens"
AUDIO = ("usage.prompt_tokens_details.audio_tokens", "usage.completion_tokens_details.audio_tokens")
CALLS = ("tool_calls.length", "tool_calls.id", "tool_calls.function")
ANSWER = ("role", "content", "finish_reason", *CALLS)
# The whole chat completion of the API.
API = (
    *ENVELOPE, *ANSWER, "usage", "moderation", "logprobs", "refusal", "tool_calls", "function_call",
    "audio", "annotations",
)  # fmt: skip


OPENAI = ("openai==3.57.0", "pydantic==2.14.4")


@dataclass(frozen=True)
class Peer:
    """One reducer."""

    name: str
    # What is installed and named on the page, the reducer's first; package.json pins Node's.
    packages: tuple[str, ...]
    room: Room
    # "own": it reads the bytes itself. "chunks": it is handed chunks by openai-python, so framing
    # is not its job and the body comes framed by the book.
    framing: Literal["own", "chunks"] = "chunks"
    language: Literal["python", "node"] = "python"

    @property
    def what(self) -> str:
        """What is run, as the first line of the adapter says."""
        suffix = {"python": "py", "node": "mjs"}[self.language]
        text = (ADAPTERS / f"{self.name}.{suffix}").read_text(encoding="utf-8")
        return text.partition("\n")[0].strip('"/').partition(": ")[2]

    def takes(self, case: Case) -> bool:
        """Return whether a case is one for this peer: without events nobody has chunks for it."""
        return self.framing == "own" or case.is_of_events


def room(*keys: str, **how: str) -> Room:
    """Make a room of names."""
    return Room(frozenset(keys), **how)  # type: ignore[arg-type]


EVERYTHING = room(*API, "reasoning", "reasoning_content", "extra")
PEERS = (
    Peer("ours", ("msgspec==0.23.0", "attrs==26.1.0", "cattrs==26.2.1"), EVERYTHING, "own"),
    # Its models keep fields that they do not know, as its README says.
    Peer("openai", OPENAI, EVERYTHING, "own"),
    Peer("openai_node", ("openai",), EVERYTHING, "own", "node"),
    Peer(
        "ai_sdk", ("ai", "@ai-sdk/openai-compatible"),
        room(
            "id", "created", "model", "content", "reasoning", "finish_reason", *CALLS, *USAGE,
            CACHED, REASONED, "extra.tool_call.extra_content",
            choices="first", content="answer", reasoning="one", arguments="json",
        ),
        "own", "node",
    ),
    Peer(
        "litellm", ("litellm==1.110.2", *OPENAI),
        # `provider_specific_fields` of choice and message keep what it does not know. `created` is
        # its own clock's, for every stream.
        room(
            *(key for key in API if key != "created"),
            "reasoning", "extra.message", "extra.choice", "extra.usage", reasoning="one",
        ),
    ),
    Peer(
        "any_llm", ("any-llm-sdk[openai]==1.40.2", *OPENAI),
        # "Audio output is not aggregated", says its documentation.
        room(
            *(key for key in API if key not in ("audio", "moderation")),
            "reasoning", "extra.message.images", "extra.message.extra_content",
            "extra.tool_call.extra_content", reasoning="one",
        ),
    ),
    Peer(
        "langchain", ("langchain-openai==1.7.4", "langchain-core==1.8.3", *OPENAI),
        # It refers to other packages for the reasoning of other providers.
        room(
            "model", "service_tier", "system_fingerprint", *ANSWER, *USAGE, CACHED, REASONED,
            *AUDIO, "logprobs", "function_call", "audio", choices="first",
        ),
    ),
    Peer(
        "pydantic_ai", ("pydantic-ai-slim[openai]==2.68.0", *OPENAI),
        room(
            "id", "created", "model", "service_tier", "moderation", "content", "refusal",
            "reasoning", "finish_reason", *CALLS, "usage.prompt_tokens", "usage.completion_tokens",
            CACHED, REASONED, *AUDIO, "logprobs.content", "annotations",
            "extra.tool_call.extra_content",
            choices="first", content="text", reasoning="one", arguments="json",
        ),
    ),
    Peer(
        "openai_agents", ("openai-agents==0.24.0", *OPENAI),
        room(
            "content", "refusal", "reasoning", *CALLS, *USAGE, CACHED, REASONED,
            "logprobs.content", "annotations", choices="first", content="text", reasoning="one",
        ),
    ),
    Peer(
        "lm15", ("lm15==1.5.0",),
        # Its model is the request's. Of an unstreamed completion it keeps a refusal, too.
        room(
            "content", "refusal", "reasoning", "finish_reason", *CALLS, *USAGE, CACHED, REASONED,
            *AUDIO, "logprobs.content",
            choices="first", content="text", reasoning="one", arguments="json",
        ),
        "own",
    ),
    Peer(
        "llmstream", ("llmstream==0.1.0",),
        room(
            "model", "content", "reasoning", "finish_reason", *CALLS, *USAGE,
            choices="first", reasoning="one",
        ),
        "own",
    ),
    Peer(
        "openinference",
        ("openinference-instrumentation-openai==0.1.66", "opentelemetry-sdk==1.45.2", *OPENAI),
        EVERYTHING,
    ),
    Peer(
        "langsmith", ("langsmith==0.15.1", *OPENAI),
        # Of an unstreamed completion it keeps everything but the usage's vendor fields.
        room(
            *(key for key in API if key != "usage"), *USAGE, CACHED, REASONED, *AUDIO,
            "reasoning", "reasoning_content", "extra.completion", "extra.choice", "extra.message",
            "extra.tool_call",
        ),
    ),
    Peer(
        "langfuse", ("langfuse==5.0.4", *OPENAI),
        room(
            "model", "service_tier", "usage", "content", "finish_reason", "tool_calls",
            "function_call",
        ),
    ),
    Peer(
        "ddtrace", ("ddtrace==4.16.0", *OPENAI),
        room(
            "model", *USAGE, CACHED, REASONED, *ANSWER, "tool_calls", "function_call",
            "reasoning_content",
        ),
    ),
)  # fmt: skip
