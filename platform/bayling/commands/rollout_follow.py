"""`bayling rollout follow`: the rollout controller of a RayService, in a pod of its own.

Where `bayling serve` is server and controller in one, on Kubernetes KubeRay runs the server, and
this carries its rollouts out from beside it. It needs no Ray: it speaks with the API server, with
MLflow and with the API that is served.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling.errors import UserError

if TYPE_CHECKING:
    from bayling.cluster.ray_service import RayService
    from bayling.config import Config
    from bayling.serve.application import Arguments
    from bayling.serve.rollout.plan import Rollout
    from bayling.serve.rollout.pulse import Pulse
    from bayling.serve.rollout.record import Registered

log = logging.getLogger(__name__)

_EPILOG = """The chart `serving` runs it. It writes what is to run into the serveConfigV2 of the
RayService, and goes on beside a server that runs already. While MLflow has no version behind
serve.alias it waits and says so, in its log and at http://POD:PORT/status.
"""
_LIVES_S = 120.0
"""A controller that has not looked for so long is stuck: it waits for no answer as long."""


def register(verbs: Any) -> None:
    """Add the verb `follow` to `bayling rollout`."""
    text = "carry out the rollouts of a RayService on Kubernetes until told to stop"
    parser = verbs.add_parser(
        "follow",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ray-service", required=True, metavar="NAME", help="the RayService")
    parser.add_argument(
        "--namespace", metavar="NAME", help="its namespace; default: that of this pod or context"
    )
    parser.add_argument(
        "--api", required=True, metavar="URL", help="where what it serves is found from here"
    )
    parser.add_argument(
        "--key-file", required=True, type=Path, metavar="PATH", help="a file with a key for it"
    )
    parser.add_argument(
        "--cache", metavar="PATH", help="where Ray's nodes keep the models they fetch from MLflow"
    )
    parser.add_argument(
        "--api-on",
        metavar="RESOURCE",
        help="a resource that only the Ray nodes have on which the API may be",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="of /healthz and /status; default: %(default)s"
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides, such as serve.…")
    parser.set_defaults(work=_follow)


def _follow(arguments: argparse.Namespace) -> None:
    from bayling.commands import rollout
    from bayling.config import compose
    from bayling.serve.rollout import mailbox
    from bayling.serve.rollout.pulse import Pulse

    mailbox.hurry()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    config = compose(arguments.words)
    target = _target(arguments, config)
    try:
        pulse = Pulse(arguments.port, _LIVES_S)
    except OSError as error:
        raise UserError(
            f"--port {arguments.port} cannot be listened on ({error.strerror})"
        ) from None
    with pulse:
        try:
            recorded, registered = _beginning(config, target, pulse)
            print(
                f"following {config.registered_model} on the RayService {arguments.ray_service}: "
                f"version {recorded.serving} serves",
                file=sys.stderr,
                flush=True,
            )
            stop = threading.Event()
            rollout.follow(config, target, target.ask, recorded, registered, stop, pulse.beat)
        except KeyboardInterrupt:  # SIGTERM too; what runs goes on without a controller
            print("stopping …", file=sys.stderr)


def _target(arguments: argparse.Namespace, config: Config) -> RayService:
    """
    Raises:
        UserError: there is no way to the API server, or no key.
    """
    from bayling.cluster import kubernetes_api
    from bayling.cluster.ray_service import RayService
    from bayling.serve.application import ENGINES, service_config

    _key(arguments.key_file)
    cluster = kubernetes_api.connect(
        namespace=arguments.namespace, granted_by="the Role of the chart `serving`"
    )
    return RayService(
        cluster,
        arguments.ray_service,
        partial(service_config, served_there(config, arguments.cache, arguments.api_on)),
        arguments.api,
        partial(_key, arguments.key_file),
        ENGINES,
    )


def served_there(config: Config, cache: str | None, api_on: str | None) -> Arguments:
    """What the deployments of a RayService are given: see `Arguments` and `ServedModel`."""
    from bayling.serve import run as serving
    from bayling.serve.application import ServedModel

    served = ServedModel(config.tracking, config.registered_model, {}, cache)
    arguments = serving.arguments_of(config.serve, served, config.scale)
    return replace(arguments, listen=False, api_on=api_on)


def _key(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise UserError(f"no key can be read from {path} ({error.strerror})") from None


def _beginning(config: Config, target: RayService, pulse: Pulse) -> tuple[Rollout, Registered]:
    """Where the server is, once that is known; the version that is to serve then runs, or is on its
    way, also where another controller follows the same model. Until then the API is there without
    one, unless versions run already."""
    from bayling.commands import rollout

    said, empty = "", False
    while True:
        running: set[str] | None = None
        try:
            running = target.versions()
            recorded, registered = rollout.beginning(config, running)
            if recorded.serving not in running:
                target.apply({recorded.serving: 1.0}, ())
            return recorded, registered
        except Exception as error:
            why = _why(error, config)
        try:
            if running is not None and not running and not empty:
                target.apply({}, ())
                empty = True
        except Exception as error:
            why = _why(error, config)
        if why != said:
            log.warning("waiting: %s", why)
            said = why
        pulse.beat(_waiting(config, why))
        time.sleep(config.serve.rollout.poll_s)


def _waiting(config: Config, why: str) -> Mapping[str, Any]:
    return {"following": config.registered_model, "state": "waiting", "reason": why}


def _why(error: Exception, config: Config) -> str:
    """What is missing, in a sentence."""
    if isinstance(error, UserError):
        return str(error)
    code = getattr(error, "error_code", "")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return (
            f"MLflow at {config.tracking} does not let this account in: check "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return (str(error).strip().splitlines() or [""])[0][:300] or type(error).__name__
