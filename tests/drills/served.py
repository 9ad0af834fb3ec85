"""A server in a process of its own, for drills: `python served.py JSON`.

The JSON has `config` (fields of ServeConfig), `folders` and `shares` by version, and perhaps
`engine`, the builder of the engines. It prints JSON lines: the URL once it answers, and the number
of running replicas whenever it changes. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "platform"), str(ROOT / "tests"), str(ROOT / "tests" / "drills")]


def say(**fields: Any) -> None:
    print(json.dumps({"at": time.time(), **fields}), flush=True)


def replicas() -> int:
    """How many engine replicas answer."""
    from ray import serve
    from ray.serve.schema import ReplicaState

    return sum(
        deployment.replica_states.get(ReplicaState.RUNNING, 0)
        for name, application in serve.status().applications.items()
        for deployment in application.deployments.values()
        if name != "bayling"
    )


def main() -> None:
    asked = json.loads(sys.argv[1])
    sys.path[:0] = PATHS
    os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)

    from bayling.cluster import local
    from bayling.scale import ScaleConfig
    from bayling.serve import application, run
    from bayling.serve.application import ServedModel
    from bayling.serve.config import ServeConfig

    application.ENGINE_BUILDER = asked.get("engine", application.ENGINE_BUILDER)
    served = ServedModel("sqlite:///unused", "bayling", asked["folders"])
    # Room for every engine, whatever the cores.
    with local.connected(ScaleConfig(), ScaleConfig(workers=4)):
        say(url=run.deploy(ServeConfig(**asked["config"]), served, asked["shares"], ScaleConfig()))
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        before = -1
        while not ended.wait(0.2):
            now = replicas()
            if now != before:
                say(replicas=now)
                before = now
        run.shutdown()


if __name__ == "__main__":
    main()
