"""langsmith: `wrap_openai`, and the outputs of the run that it records."""

from typing import Any

import openai
from _shape import usage
from langsmith.run_helpers import tracing_context
from langsmith.run_trees import RunTree
from langsmith.wrappers import wrap_openai


def reduce(url: str, params: dict[str, Any]) -> object:
    """Drain one traced stream and return the outputs of its run in the API's shape."""
    client = wrap_openai(openai.OpenAI(base_url=url, api_key="none", max_retries=0))
    create: Any = client.chat.completions.create
    runs: list[RunTree] = []
    # "local": the run is traced and sent nowhere.
    with tracing_context(enabled="local"):
        for _ in create(**params, stream=True, langsmith_extra={"on_end": runs.append}):
            pass
    return in_api_shape(dict(runs[0].outputs or {}))


def in_api_shape(outputs: dict[str, Any]) -> dict[str, Any]:
    """Name langsmith's usage as the API does."""
    counts = outputs.pop("usage_metadata", None)
    if counts is not None:
        read = counts.get("input_token_details") or {}
        written = counts.get("output_token_details") or {}
        outputs["usage"] = usage(
            (counts.get("input_tokens"), counts.get("output_tokens"), counts.get("total_tokens")),
            read.get("cache_read"),
            written.get("reasoning"),
            (read.get("audio"), written.get("audio")),
        )
    return outputs
