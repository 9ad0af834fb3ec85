"""Run by `helm test`: a translation comes back, for those with a key only; or what is missing."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

API, CONTROLLER = os.environ["API"], os.environ["CONTROLLER"]


def ask(url: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    """Status and JSON of an answer; 0 and the reason where nobody answers."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None)
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        try:
            return refused.code, json.load(refused)
        except ValueError:
            return refused.code, str(refused)
    except OSError as error:
        return 0, str(error)


def missing() -> str:
    """Why nothing is served yet, as far as the controller knows."""
    status, said = ask(f"{CONTROLLER}/status")
    if status != 200:
        return f"the rollout controller does not answer ({said}): see the log of its pod"
    if said.get("state") == "waiting":
        return f"the rollout controller waits: {said['reason']}"
    notice = f"; {said['notice']}" if said.get("notice") else ""
    return f"version {said.get('serving')} has no engine yet ({said.get('reason')}{notice})"


def main() -> str:
    """What came back, or by SystemExit what is missing."""
    until = time.monotonic() + float(os.environ["WITHIN_S"])
    while (status := ask(f"{API}/readyz")[0]) != 200:
        if time.monotonic() > until:
            raise SystemExit(f"{API}/readyz is answered with {status or 'nothing'}: {missing()}")
        time.sleep(3)
    if ask(f"{API}/v1/models")[0] != 401:
        raise SystemExit(f"{API} answers without asking for a key")
    key = os.environ["KEY"]
    status, models = ask(f"{API}/v1/models", key=key)
    if status != 200:
        raise SystemExit(f"{API} does not take the key ({status}): {models}")
    languages = [tag for tag in models["data"][0]["languages"] if tag != "en"] or ["de"]
    wanted = {"text": "in 5 days", "source": "en", "target": languages[0], "max_tokens": 40}
    status, answer = ask(f"{API}/v1/translations", wanted, key)
    if status != 200:
        raise SystemExit(f"{API}/v1/translations is answered with {status}: {answer}")
    text = answer["translations"][0]["text"]
    return f"{models['data'][0]['id']} version {models['data'][0]['version']}: in 5 days → {text}"


if __name__ == "__main__":
    print(main())
    sys.exit(0)
