"""An agent loop with typed, parallel tool calls, and reasoning that stays in the history.

Each tool starts as soon as its own arguments are complete, while the model still writes the next
call. The model's reasoning goes back with its calls, because providers of such models want it.

    pip install chunk-accumulator openai pydantic
    OPENAI_API_KEY=… python agent_loop.py "How warm is it in Zürich and in 東京?"

OPENAI_BASE_URL names another server, OPENAI_MODEL another model.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import openai
from pydantic import BaseModel

from accumulator import ParseError, ToolCall, iter_events
from accumulator.events import DoneEvent


class GetWeather(BaseModel):
    """Return how warm it is in a city."""

    city: str
    unit: str = "°C"


class AddNumbers(BaseModel):
    """Return the sum of some numbers."""

    numbers: list[float]


def get_weather(place: GetWeather) -> str:
    degrees = {"Zürich": 21, "東京": 27}.get(place.city)
    return "unknown" if degrees is None else f"{degrees} {place.unit}"


def add_numbers(terms: AddNumbers) -> str:
    return str(sum(terms.numbers))


TOOLS: dict[str, tuple[type[BaseModel], Callable[[Any], str]]] = {
    "get_weather": (GetWeather, get_weather),
    "add_numbers": (AddNumbers, add_numbers),
}


def described(name: str, kind: type[BaseModel]) -> dict[str, Any]:
    """Return a tool as the request describes it to the model."""
    schema = kind.model_json_schema()
    function = {"name": name, "description": kind.__doc__, "parameters": schema}
    return {"type": "function", "function": function}


def run(call: ToolCall) -> str:
    """Return the tool's answer, or what is wrong with the call, for the model to correct."""
    if call.name not in TOOLS:
        return f"there is no tool {call.name}"
    kind, tool = TOOLS[call.name]
    try:
        return tool(call.arguments_as(kind))
    except ParseError as error:
        return f"wrong arguments: {error}"


def key_of(call: ToolCall) -> object:
    """Return what identifies a call; some servers send no ids."""
    return call.id, call.name, call.arguments


def answer(client: openai.OpenAI, model: str, question: str, max_turns: int = 10) -> list[Any]:
    """Return the whole history, whose last message is the answer."""
    messages: list[Any] = [{"role": "user", "content": question}]
    tools: list[Any] = [described(name, kind) for name, (kind, _) in TOOLS.items()]
    with ThreadPoolExecutor() as pool:
        for _ in range(max_turns):
            stream = client.chat.completions.create(
                model=model, messages=messages, tools=tools, stream=True
            )
            done: DoneEvent | None = None
            running: dict[object, Future[str]] = {}
            for event in iter_events(stream):
                match event.type:
                    case "reasoning.delta" | "content.delta":
                        print(event.delta, end="", flush=True)
                    case "tool_calls.function.arguments.done":
                        running[key_of(event.tool_call)] = pool.submit(run, event.tool_call)
                    case "done":
                        done = event
            print()
            if done is None or done.status != "complete":
                raise RuntimeError("the stream was cut off")
            choice = done.completion.choices[0]
            if choice.finish_reason == "length":  # its last call may be cut off
                raise RuntimeError("the answer ran into max_tokens")
            message = choice.message
            messages.append(message.to_message())
            if not message.tool_calls:
                return messages
            for call in message.tool_calls:
                result = running[key_of(call)].result()
                print(f"{call.name}({call.arguments}) = {result}")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError(f"no answer after {max_turns} turns")


if __name__ == "__main__":
    with openai.OpenAI() as client:
        answer(client, os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), " ".join(sys.argv[1:]))
