"""What the field's load generators and evaluators send to `/v1/chat/completions`, field by field as their sources write it.

vLLM: vllm/benchmarks/lib/endpoint_request_func.py and serve.py. SGLang: sglang/benchmark/serving.py and bench_serving.py.
GuideLLM: guidellm/backends/openai/request_handlers.py. LLMPerf: llmperf/ray_clients/openai_chat_completions_client.py.
GenAI-Perf: genai_perf/inputs/converters/openai_chat_completions_converter.py. AIPerf: aiperf/endpoints/openai_chat.py.
lmms-eval: lmms_eval/models/chat/openai_compatible.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.gateway import image_part

TOKENS = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: `body` without its model, `headers` beside those of JSON. `tokens`: how many the answer must have."""

    body: dict[str, Any]
    tokens: int | None = TOKENS
    headers: Mapping[str, str] = field(default_factory=dict)


def requests(question: str, image: bytes) -> dict[str, Sent]:
    """One of each tool, about one picture where the tool sends pictures."""
    text, picture = {"type": "text", "text": question}, image_part(image)
    text_first = [{"role": "user", "content": [text, picture]}]
    picture_first = [{"role": "user", "content": [picture, text]}]
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    greedy = {"temperature": 0.0, "ignore_eos": True}
    return {
        "vllm bench serve": Sent(
            {"messages": text_first, "max_completion_tokens": TOKENS, **usage, **greedy},
            headers={"x-request-id": "benchmark-serving0"},
        ),
        "vllm bench serve, with every option of sampling": Sent(
            {
                "messages": text_first,
                "max_completion_tokens": TOKENS,
                **usage,
                **greedy,
                **{"top_p": 0.9, "top_k": -1, "min_p": 0.1, "frequency_penalty": 0.1, "presence_penalty": 0.1},
                "repetition_penalty": 1.1,
            }
        ),
        "benchmark_serving.py": Sent(
            {
                "messages": text_first,
                **{"temperature": 0.0, "max_completion_tokens": TOKENS, "stream": True, "ignore_eos": True},
                "stream_options": {"include_usage": True},
            }
        ),
        "sglang.bench_serving": Sent(
            {"messages": picture_first, "max_completion_tokens": TOKENS, "stream": True, **greedy},
            headers={"x-smg-routing-key": "round-0"},
        ),
        "sglang.bench_serving --disable-stream": Sent(
            {
                "messages": picture_first,
                "max_completion_tokens": TOKENS,
                "stream": False,
                "temperature": 0.0,
                "ignore_eos": False,
            },
            tokens=None,
        ),
        "guidellm": Sent(
            {
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                **{"max_completion_tokens": TOKENS, "stop": None, "ignore_eos": True},
                "messages": [{"role": "system", "content": "be short"}, *text_first],
            }
        ),
        "llmperf": Sent(
            {
                "messages": [{"role": "system", "content": ""}, {"role": "user", "content": question}],
                **{"stream": True, "max_tokens": TOKENS},
            },
            tokens=None,
        ),
        "genai-perf --extra-inputs min_tokens ignore_eos": Sent(
            {"messages": text_first, "stream": True, "max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
        ),
        "aiperf": Sent(
            {"messages": text_first, **usage, "max_completion_tokens": TOKENS, "ignore_eos": True, "min_tokens": TOKENS}
        ),
        "lmms-eval": Sent({"messages": picture_first, "max_tokens": TOKENS, "temperature": 0}, tokens=None),
    }
