"""The servers that `serve.py` compares: `python servers.py NAME FOLDER PORT THREADS DTYPE`.

The platform takes the type that the weights are stored in.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path

PLATFORM = Path(__file__).resolve().parents[1] / "platform"
MOST = 32
"""Requests at a time that every server has room for."""
CONTEXT = 1024
INTERVAL_S = 0.03


def bayling(folder: str, port: int, threads: int, engine: str) -> None:
    """The platform's own server."""
    sys.path.insert(0, str(PLATFORM))
    from bayling.cluster import local
    from bayling.scale import ScaleConfig
    from bayling.serve import run
    from bayling.serve.application import ServedModel
    from bayling.serve.config import EngineName, ServeConfig

    config = ServeConfig(
        port=port,
        engine=EngineName(engine),
        engine_cpus=threads,
        max_batch=MOST,
        max_replicas=1,
        stream_interval_s=INTERVAL_S,
        request_timeout_s=600,  # the others have no limit
    )
    served = ServedModel("sqlite:///unused", "bayling", {"1": folder})
    scale = ScaleConfig()
    with local.connected(scale, ScaleConfig(workers=4)):
        run.deploy(config, served, {"1": 1.0}, scale)
        _wait()


def transformers(folder: str, port: int, dtype: str) -> None:
    """`transformers serve` with its continuous batching."""
    blocks = str(2 * MOST * CONTEXT // 256)
    sys.argv = ["transformers", "serve", folder, "--continuous-batching", "--port", str(port)]
    sys.argv += ["--cb-num-blocks", blocks, "--dtype", dtype]
    runpy.run_path(str(Path(sys.executable).with_name("transformers")), run_name="__main__")


def vllm(folder: str, port: int, dtype: str) -> None:
    """vLLM's own server."""
    sys.argv = ["vllm", "--model", folder, "--served-model-name", "bayling", "--port", str(port)]
    sys.argv += ["--host", "127.0.0.1", "--dtype", dtype, "--enforce-eager"]
    sys.argv += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(MOST)]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


def ray_serve_llm(folder: str, port: int, dtype: str) -> None:
    """Ray Serve's own LLM application, which has vLLM in it."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    config = LLMConfig(
        model_loading_config={"model_id": "bayling", "model_source": folder},
        accelerator_config={"kind": "cpu"},
        deployment_config={"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}},
        engine_kwargs={
            "dtype": dtype,
            "max_model_len": CONTEXT,
            "max_num_seqs": MOST,
            "enforce_eager": True,
        },
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=False)
    _wait()


def _wait() -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()


if __name__ == "__main__":
    name, model, listen, cores, kind = sys.argv[1:6]
    os.environ["OMP_NUM_THREADS"] = cores
    match name:
        case "bayling":
            bayling(model, int(listen), int(cores), "transformers")
        case "bayling-vllm":
            bayling(model, int(listen), int(cores), "vllm")
        case "transformers":
            transformers(model, int(listen), kind)
        case "vllm":
            vllm(model, int(listen), kind)
        case "ray-serve-llm":
            ray_serve_llm(model, int(listen), kind)
        case _:
            raise SystemExit(f"there is no server {name!r}")
