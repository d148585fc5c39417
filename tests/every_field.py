"""A completion with every field of the API that this library types, and some of vendors'."""

from __future__ import annotations

WHOLE: dict[str, object] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1760000000,
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi",
                "refusal": None,
                "reasoning": "why",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}", "vendor": 1},
                        "extra_content": {"google": {"thought_signature": "c2ln"}},
                    },
                    {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "x"}},
                ],
                "function_call": {"name": "f", "arguments": "{}"},
                "audio": {"id": "audio_1", "data": "AAEC", "transcript": "Hi", "expires_at": 5},
                "annotations": [{"type": "url_citation"}],
                "reasoning_details": [{"type": "reasoning.text", "signature": "s", "index": 0}],
                "channel": "final",
            },
            "finish_reason": "tool_calls",
            "logprobs": {
                "content": [
                    {
                        "token": "Hi",
                        "logprob": -0.5,
                        "bytes": [72, 105],
                        "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}],
                    }
                ],
                "refusal": None,
                "reasoning_content": [1],
            },
            "content_filter_results": {"hate": {"filtered": False}},
        }
    ],
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "completion_tokens_details": {"reasoning_tokens": 1, "text_tokens": 1, "image_tokens": 0},
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 1,
            "image_tokens": 0,
            "text_tokens": 1,
        },
        "cost": 0.25,
    },
    "moderation": {"input": {"type": "moderation_result"}},
    "citations": ["https://example.org"],
}
