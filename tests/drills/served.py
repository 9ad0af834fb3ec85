"""A server in a process of its own, for drills: `python served.py JSON`.

The JSON has `config` (fields of ServeConfig), `folders` and `shares` by version, and `builders`,
the module that the engines come from. It prints JSON lines: the URL once it answers, then the
number of running replicas of each version whenever it changes. It ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "tests")]


def say(**fields: Any) -> None:
    print(json.dumps({"at": time.time(), **fields}), flush=True)


def replicas() -> dict[str, int]:
    """How many replicas of each version answer."""
    from ray import serve
    from ray.serve.schema import ReplicaState

    return {
        name.partition("-v")[2]: deployment.replica_states.get(ReplicaState.RUNNING, 0)
        for name, application in serve.status().applications.items()
        for deployment in application.deployments.values()
        if "-v" in name
    }


def main() -> None:
    asked = json.loads(sys.argv[1])

    from bayling.cluster import local
    from bayling.scale import ScaleConfig
    from bayling.serve import application, run
    from bayling.serve.application import ServedModel
    from bayling.serve.config import ServeConfig

    if "builders" in asked:
        application.ENGINE_BUILDER = asked["builders"]
    config = ServeConfig(**asked["config"])
    served = ServedModel("sqlite:///unused", "bayling", asked["folders"])
    import os

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    with local.connected(ScaleConfig(), ScaleConfig(workers=asked.get("cpus", 4))):
        say(url=run.deploy(config, served, asked["shares"], ScaleConfig()))
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        before: dict[str, int] = {}
        while not ended.wait(0.2):
            now = replicas()
            if now != before:
                say(replicas=now)
                before = now
        run.shutdown()


if __name__ == "__main__":
    main()
