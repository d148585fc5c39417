"""openai-python: the chunks of its client, and the snapshot of a `ChatCompletionStreamState`."""

from typing import Any

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState


def reduce(url: str, params: dict[str, Any]) -> object:
    """Stream one completion and return what the state has accumulated."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    # It does a little better than `.stream()`, which drops chunks whose `object` is empty.
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(**params, stream=True):
        state.handle_chunk(chunk)
    # `get_final_completion()` would parse it too, and raises where the reason is `length`.
    return state.current_completion_snapshot.to_dict(mode="python", warnings=False)
