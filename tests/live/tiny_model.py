"""Writes a language model of 470 KB whose weights are random: it says gibberish, byte by byte.

The vocabulary is GPT-2's 256 bytes and a few marks, so a token may end inside a character. The
weights are the same each time.
"""

from __future__ import annotations

from pathlib import Path

import gguf  # pyright: ignore[reportMissingImports]  # of the group `live`
import numpy as np

WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 64, 2, 4, 128, 4096
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|tools|>"]
CALL = "<tool_call>"

# llama.cpp learns from the template how calls and reasoning are written.
TEMPLATE = """
{%- if tools -%}
<|im_start|>tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif -%}
{{ message.content or "" }}
{%- for call in message.tool_calls or [] -%}
{% set written = {"name": call.function.name, "arguments": call.function.arguments} -%}
<tool_call>{{ written | tojson }}</tool_call>
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking %}<think>{% elif tools %}<|tools|>{% endif -%}
{%- endif -%}
"""


def byte_names() -> list[str]:
    """Return the printable character by which GPT-2 writes each byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_model(path: Path) -> None:
    """Write the model as a GGUF file."""
    random = np.random.default_rng(7)
    tokens = [*byte_names(), *MARKS, CALL]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(MARKS)
    writer.add_token_types([*kinds, gguf.TokenType.USER_DEFINED])
    # There must be a merge; what this one would make is not a token.
    writer.add_token_merges([f"{tokens[32]} {tokens[32]}"])
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(258)
    writer.add_chat_template(TEMPLATE)

    def add_random(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(np.float32))

    embeddings = random.standard_normal((len(tokens), WIDTH))
    outputs = random.standard_normal((len(tokens), WIDTH)) * 0.5
    # Bytes that may begin an invalid character are unlikely: llama.cpp's grammars allow them in a
    # string, and its parser then refuses the whole answer.
    outputs[[0xC0, 0xC1, 0xE0, 0xED, 0xF0, *range(0xF4, 0x100)]] = 0
    # After `<|tools|>`, with which a prompt with tools ends, the likeliest token is `<tool_call>`:
    # llama.cpp's grammar allows any text before a call.
    embeddings[tokens.index("<|tools|>")] = 20 * outputs[tokens.index(CALL)]
    writer.add_tensor("token_embd.weight", embeddings.astype(np.float32))
    writer.add_tensor("output.weight", outputs.astype(np.float32))
    norms = ["output_norm"]
    for block in (f"blk.{layer}" for layer in range(LAYERS)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_random(f"{block}.{name}.weight", WIDTH, WIDTH)
        add_random(f"{block}.ffn_gate.weight", HIDDEN, WIDTH)
        add_random(f"{block}.ffn_up.weight", HIDDEN, WIDTH)
        add_random(f"{block}.ffn_down.weight", WIDTH, HIDDEN)
        norms += [f"{block}.attn_norm", f"{block}.ffn_norm"]
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
