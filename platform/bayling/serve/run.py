"""Bringing the API up on a Ray that runs already, and taking it down."""

from __future__ import annotations

import logging
import re
import socket
import time
from typing import TYPE_CHECKING

from bayling.errors import StageFailed, UserError
from bayling.scale import ScaleConfig
from bayling.serve.config import ServeConfig

if TYPE_CHECKING:
    from bayling.serve.deployments import ServedModel

APPLICATION = "bayling"


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


def deploy(config: ServeConfig, served: ServedModel, scale: ScaleConfig) -> str:
    """Serve a model and wait until it answers; returns the base URL. Ray must be running.

    Raises:
        UserError: the configuration cannot work, or the port is taken.
        StageFailed: a replica did not start, or not in time; nothing is left running.
    """
    config.validate()
    check_port(config.host, config.port)
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from bayling.serve.deployments import application

    # It reports its own steps, down to "connecting to existing app", which this very call made.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=config.host, port=config.port),
    )
    try:
        serve.run_many(
            [serve.RunTarget(application(config, served, scale), name=APPLICATION)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        _wait(config)
    except BaseException:
        shutdown()
        raise
    return base_url(config)


def shutdown() -> None:
    """Take the application and Serve down; requests in flight are given a moment to finish."""
    from ray import serve

    serve.shutdown()


def _wait(config: ServeConfig) -> None:
    """Return when the API says it is ready."""
    import httpx
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline = time.monotonic() + config.startup_timeout_s
    while time.monotonic() < deadline:
        application = serve.status().applications.get(APPLICATION)
        if application is not None and application.status == ApplicationStatus.DEPLOY_FAILED:
            messages = [part.message for part in application.deployments.values() if part.message]
            raise StageFailed(
                f"the model could not be served: {_reason(messages or [application.message])}"
            )
        if application is not None and application.status == ApplicationStatus.RUNNING:
            try:
                if httpx.get(f"{base_url(config)}/readyz", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                pass  # the proxy learns of the route a moment later
        time.sleep(0.2)
    raise StageFailed(
        f"the model was not ready within serve.startup_timeout_s={config.startup_timeout_s:g} s: "
        "are there enough free CPUs or GPUs for serve.min_replicas engines "
        f"({config.min_replicas} × {config.engine_cpus} CPUs)?"
    )


def _reason(messages: list[str]) -> str:
    """The replica's own exception out of Serve's report, in one line."""
    for message in messages:
        raised = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Failed|Exception)): (.+)$", message, re.M)
        if raised:
            kind, text = raised[-1]
            return text if kind == "UserError" else f"{kind}: {text}"
    return " ".join(messages[0].split()) if messages else "Ray Serve gives no reason"
