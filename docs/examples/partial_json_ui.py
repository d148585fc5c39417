"""Fill in a form while the model writes JSON, and show what there is if the model refuses or runs
into its limit on tokens.

    pip install 'chunk-accumulator[partial]' openai pydantic
    OPENAI_API_KEY=… python partial_json_ui.py "Pancakes, please"

OPENAI_BASE_URL names another server, OPENAI_MODEL another model, MAX_TOKENS sets a limit.
"""

import os
import sys
from typing import Any

import openai
from pydantic import BaseModel, ConfigDict

from accumulator import Message, ParseError, iter_events


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")  # the API's strict schemas require it

    title: str
    servings: int
    steps: list[str]


def show(form: object) -> None:
    """Print the form with the fields that have arrived so far."""
    if isinstance(form, dict):
        steps = form.get("steps") or []
        print(f"{form.get('title', '…')} | for {form.get('servings', '…')} | {len(steps)} steps")


def ask(client: openai.OpenAI, model: str, wish: str, max_tokens: int) -> Message | None:
    """Show the answer as it arrives, and return its message."""
    schema = {"name": "recipe", "strict": True, "schema": Recipe.model_json_schema()}
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": wish}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "max_tokens": max_tokens,
    }
    form: object = None
    message = None
    for event in iter_events(client.chat.completions.create(stream=True, **request)):
        match event.type:
            case "content.delta":
                if event.parsed != form:
                    form = event.parsed
                    show(form)
            case "refusal.delta":
                print(event.delta, end="", flush=True)
            case "refusal.done":
                print()
            case "done":
                if event.status != "complete":
                    print(f"the stream is {event.status}")
                if event.completion.choices:
                    message = event.completion.choices[0].message
    return message


def main() -> None:
    model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
    max_tokens = int(os.environ.get("MAX_TOKENS", "1000"))
    with openai.OpenAI() as client:
        message = ask(client, model, " ".join(sys.argv[1:]), max_tokens)
    if message is None:
        sys.exit(1)
    try:
        recipe = message.content_as(Recipe)
    except ParseError as error:
        print(f"no recipe: {error}")
        if message.content:
            print(f"what there is: {message.partial_content()}")
        sys.exit(1)
    print(f"Cook {recipe.title}:", *recipe.steps, sep="\n- ")


if __name__ == "__main__":
    main()
