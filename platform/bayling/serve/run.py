"""Bringing the API up on a Ray that runs already, and taking it down."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bayling.errors import StageFailed, UserError
from bayling.scale import Device, ScaleConfig
from bayling.serve.application import API, Arguments, ServedModel, applications
from bayling.serve.config import TEXTS_ARE_LOGGED, ServeConfig

log = logging.getLogger(__name__)

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that are none to go to → where this machine finds itself."""


def base_url(config: ServeConfig) -> str:
    """Where the server is found from this machine."""
    host = _EVERYWHERE.get(config.host, config.host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{config.port}"


def check_port(host: str, port: int) -> None:
    """Raise UserError when something listens on the port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be listened on ({error.strerror}): choose another "
                "with serve.port"
            ) from None


def deploy(
    config: ServeConfig, served: ServedModel, shares: Mapping[str, float], scale: ScaleConfig
) -> str:
    """Serve versions of a model and wait until they answer. Ray must be running.

    Args:
        shares: version → its share of the traffic.

    Returns:
        The base URL.

    Raises:
        UserError: the configuration cannot work, or the port is taken.
        StageFailed: a replica did not start, or not in time; nothing is left running.
    """
    config.validate()
    if config.log_texts:
        log.warning(TEXTS_ARE_LOGGED)
    check_port(config.host, config.port)
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    arguments = arguments_of(config, served, scale)
    # It reports its own steps, down to "connecting to existing app", which this very call made.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location=ProxyLocation.Disabled if arguments.listen else ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=config.host, port=config.port),
    )
    try:
        apply(arguments, shares)
        _wait(config)
    except BaseException:
        shutdown()
        raise
    return base_url(config)


def arguments_of(config: ServeConfig, served: ServedModel, scale: ScaleConfig) -> Arguments:
    on_gpu = scale.device is Device.cuda
    return Arguments(
        config=config,
        served=served,
        device="cuda" if on_gpu else "cpu",
        cpus=config.engine_cpus * (1 if on_gpu else config.tensor_parallel),
        gpus=max(scale.gpus_per_worker, config.tensor_parallel) if on_gpu else 0,
        # On a cluster that was there before, the API's replicas are anywhere on it.
        listen=not (scale.ray_address or os.environ.get("RAY_ADDRESS")),
    )


def apply(arguments: Arguments, shares: Mapping[str, float], leaving: Collection[str] = ()) -> None:
    """Make a running Ray Serve run just these versions with these shares. Does not wait.

    Args:
        leaving: versions that get no request any more and finish those they have.
    """
    import ray
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    # What `serve deploy` does through the dashboard, which a laptop's Ray does without.
    runtime_env = _runtime_env(ray.get_runtime_context())
    description = applications(arguments, shares, runtime_env, leaving)
    _get_global_client().deploy_apps(ServeDeploySchema(**description))


def _runtime_env(context: Any) -> dict[str, Any]:
    """How the driver's code reaches its workers."""
    env = context.runtime_env
    return {key: env[key] for key in ("env_vars", "py_modules", "working_dir") if env.get(key)}


def shutdown() -> None:
    """Take the applications and Serve down; requests in flight are given a moment to finish."""
    from ray import serve

    serve.shutdown()


def _wait(config: ServeConfig) -> None:
    """Return when the API says it is ready."""
    import httpx
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline = time.monotonic() + config.startup_timeout_s
    while time.monotonic() < deadline:
        states = serve.status().applications
        for state in states.values():
            if state.status == ApplicationStatus.DEPLOY_FAILED:
                messages = [part.message for part in state.deployments.values() if part.message]
                raise StageFailed(
                    f"the model could not be served: {reason(messages or [state.message])}"
                )
        if API in states and states[API].status == ApplicationStatus.RUNNING:
            try:
                if httpx.get(f"{base_url(config)}/readyz", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                pass  # a proxy learns of the route a moment later
        time.sleep(0.2)
    raise StageFailed(
        f"the model was not ready within serve.startup_timeout_s={config.startup_timeout_s:g} s: "
        "are there enough free CPUs or GPUs for serve.min_replicas engines "
        f"({config.min_replicas} × {config.engine_cpus} CPUs)?"
    )


def reason(messages: Sequence[str]) -> str:
    """The replica's own exception out of Serve's report, in one line."""
    for message in messages:
        raised = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Failed|Exception)): (.+)$", message, re.M)
        if raised:
            kind, text = raised[-1]
            return text if kind == "UserError" else f"{kind}: {text}"
    return " ".join(messages[0].split()) if messages else "Ray Serve gives no reason"
