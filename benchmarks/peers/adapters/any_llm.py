"""any-llm: `completion(stream=True)`, then `accumulate_chunks` over the stream."""

from collections.abc import Iterator
from typing import Any, cast

import any_llm
from any_llm.types.completion import ChatCompletionChunk
from any_llm.utils.streaming import accumulate_chunks


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one completion and return what the accumulator makes of the chunks."""
    stream = any_llm.completion(
        provider="openai", api_base=url, api_key="none", stream=True, **params
    )
    completion = accumulate_chunks(cast("Iterator[ChatCompletionChunk]", stream))
    result = completion.model_dump(warnings=False)
    for choice, dumped in zip(completion.choices, result["choices"], strict=True):
        reasoning = choice.message.reasoning
        dumped["message"]["reasoning"] = None if reasoning is None else reasoning.content
    return result
