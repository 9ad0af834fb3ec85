"""A request as it is accounted for, with whatever a test wants to be different."""

from __future__ import annotations

from typing import Any

from bayling.serve.observed import Observed


def one_request(**different: Any) -> Observed:
    usual: dict[str, Any] = {
        "at": 1000.0,
        "request_id": "r-1",
        "endpoint": "/v1/chat/completions",
        "key": "app",
        "version": "7",
        "status": 200,
        "error": None,
        "limit": None,
        "streamed": False,
        "prompt_tokens": 10,
        "cached_tokens": 3,
        "completion_tokens": 5,
        "ttft_s": 0.1,
        "tpot_s": 0.02,
        "queued_s": 0.01,
        "total_s": 0.18,
        "finish_reasons": ("stop",),
        "retries": 0,
        "judged": 0,
        "off_target": 0,
        "trace_id": None,
    }
    return Observed(**{**usual, **different})
