"""What a controller tells over HTTP."""

from __future__ import annotations

import time

import httpx
import pytest

from bayling.serve.rollout.pulse import Pulse

pytestmark = pytest.mark.unit


def get(pulse: Pulse, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{pulse.port}{path}", trust_env=False)


def test_it_lives_while_it_beats_and_says_what_it_does() -> None:
    with Pulse(0, within_s=0.3) as pulse:
        pulse.beat({"state": "waiting", "reason": "für 百聆"})
        assert get(pulse, "/healthz").status_code == 200
        said = get(pulse, "/status").json()
        assert (said["state"], said["reason"]) == ("waiting", "für 百聆")
        time.sleep(0.4)
        assert get(pulse, "/healthz").status_code == 503
        assert get(pulse, "/status").json()["seconds_ago"] >= 0.4
        pulse.beat({})
        assert get(pulse, "/healthz").status_code == 200
        assert get(pulse, "/").status_code == 404
    with pytest.raises(httpx.ConnectError):
        get(pulse, "/healthz")
