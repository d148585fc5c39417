"""litellm: `completion(stream=True)`, then `stream_chunk_builder` over all that came."""

from typing import Any

import litellm


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one completion and return what the builder makes of the chunks."""
    messages = params["messages"]
    # Chunks built by hand instead of its own come out no better.
    # Tools in the request would import the `mcp` extra; the answer is the same without them.
    stream = litellm.completion(
        model=f"openai/{params['model']}",
        messages=messages,
        n=params["n"],
        api_base=url,
        api_key="none",
        max_retries=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    built = litellm.stream_chunk_builder(list(stream), messages=messages)
    return None if built is None else in_api_shape(built.model_dump())


def in_api_shape(result: dict[str, Any]) -> dict[str, Any]:
    """Put what litellm files under `provider_specific_fields` where the API has it."""
    for choice in result["choices"]:
        for holder in (choice, choice["message"]):
            for name, value in (holder.pop("provider_specific_fields", None) or {}).items():
                holder.setdefault(name, value)
    return result
