"""A connection to a Kubernetes API server, and its refusals as sentences.

Where the credentials come from is the `kubernetes` client's business: a kubeconfig, or the service
account of the pod that this runs in.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bayling.errors import UserError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, CoreV1Api, CustomObjectsApi

T = TypeVar("T")

REQUEST_S = 30.0
"""How long one request may take; watches and logs set their own."""
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_BUSY = (408, 429, 500, 502, 503, 504)


class Unreachable(UserError):
    """The API server does not answer, or not now."""

    exit_code = 1


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes API server and the namespace that is worked in."""

    client: ApiClient
    namespace: str
    server: str
    granted_by: str
    """What gives the rights that may be missing, for messages."""

    @property
    def core(self) -> CoreV1Api:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self.client)

    @property
    def custom(self) -> CustomObjectsApi:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self.client)


def connect(
    *,
    context: str | None = None,
    kubeconfig: str | None = None,
    namespace: str | None = None,
    granted_by: str = "a Role",
) -> Cluster:
    """The cluster of a kubeconfig's context, or the one that this process runs in.

    Asks nobody yet: the first request shows whether the credentials are good.

    Args:
        context: of the kubeconfig; None for its current one.
        kubeconfig: its path; None for $KUBECONFIG or ~/.kube/config, and in a pod without
            either, the pod's own service account.
        namespace: None for that of the context, or of the pod.
        granted_by: what in the charts grants the rights that may be missing, for messages.

    Raises:
        UserError: there is no kubeconfig, or it names no cluster that could be asked.
    """
    from kubernetes import client
    from kubernetes.config.config_exception import ConfigException
    from yaml import YAMLError  # type: ignore[import-untyped]

    loader: Any = importlib.import_module("kubernetes.config")  # has no annotations
    settings = client.Configuration()
    settings.retries = 0  # `patiently` decides
    given = kubeconfig or os.environ.get("KUBECONFIG")
    own = (_IN_CLUSTER / "token").exists() and "KUBERNETES_SERVICE_HOST" in os.environ
    if own and not given and not context and not _default_kubeconfig().exists():
        loader.load_incluster_config(client_configuration=settings)
        there = (_IN_CLUSTER / "namespace").read_text("utf-8").strip()
        where = settings.host
    else:
        path = str(Path(given).expanduser()) if given and os.pathsep not in given else given
        # The client logs what a credential plugin says, and goes on without credentials.
        with _collected_errors() as said:
            try:
                loader.load_kube_config(
                    path, context=context, client_configuration=settings, persist_config=False
                )
                contexts, active = loader.list_kube_config_contexts(path)
            except (
                ConfigException,
                OSError,
                ValueError,
                KeyError,
                TypeError,
                YAMLError,
            ) as error:
                raise UserError(_no_kubeconfig(path, context, error)) from None
        if context:
            active = next(each for each in contexts if each["name"] == context)
        if said:
            reason = " ".join(said[0].split())
            raise UserError(
                f"the credentials of the kubeconfig's context {active['name']!r} cannot be had "
                f"({reason}): log in again"
            )
        there = active["context"].get("namespace") or "default"
        where = settings.host
    return Cluster(client.ApiClient(settings), namespace or there, where, granted_by)


def _default_kubeconfig() -> Path:
    return Path("~/.kube/config").expanduser()


def _no_kubeconfig(path: str | None, context: str | None, error: BaseException) -> str:
    shown = path or str(_default_kubeconfig())
    if os.pathsep not in shown and not Path(shown).exists():
        return (
            f"there is no kubeconfig at {shown}: get one from whoever runs the cluster, and set "
            "KUBECONFIG or scale.kubernetes.kubeconfig to its path"
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    what = f" with the context {context!r}" if context else ""
    return f"the kubeconfig {shown}{what} cannot be used ({reason})"


@contextmanager
def _collected_errors() -> Iterator[list[str]]:
    """What is logged as an error inside the block, which then is not printed."""
    said: list[str] = []

    class Collector(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.levelno >= logging.ERROR:
                said.append(record.getMessage())
                return False
            return True

    root, collector = logging.getLogger(), Collector()
    root.addFilter(collector)
    try:
        yield said
    finally:
        root.removeFilter(collector)


@contextmanager
def explained(cluster: Cluster) -> Iterator[None]:
    """Turn what only a person can put right into a sentence.

    Left as `ApiException` is what the caller asked about: 404 of an object, 409, 410.

    Raises:
        UserError: unknown credentials, a missing right, an API that the cluster lacks, a quota,
            an object that admission or validation refuses.
        Unreachable: nobody answers, or the server is too busy.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        sentence = problem(error, cluster)
        if sentence is not None:
            raise UserError(sentence) from None
        if error.status in _BUSY or not error.status:
            raise Unreachable(
                f"the API server {cluster.server} does not answer as it should "
                f"({error.status} {error.reason}): try again in a while"
            ) from None
        raise
    except (HTTPError, OSError) as error:
        raise Unreachable(
            f"the API server {cluster.server} does not answer ({_root_cause(error)}): is the "
            "network (or VPN) up, and does the kubeconfig name the right cluster?"
        ) from None


def patiently(
    call: Callable[[], T],
    for_s: float,
    note: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `call` returns; while it raises `Unreachable` it is called again, ever less often.

    Args:
        for_s: how long, in seconds, before the last `Unreachable` is raised.
        note: told once, when the server is away, and once when it is back.
    """
    until, pause, away = time.monotonic() + for_s, _FIRST_PAUSE_S, False
    while True:
        try:
            result = call()
        except Unreachable as error:
            if time.monotonic() + pause > until:
                raise
            if not away and note is not None:
                note(f"{str(error).split(': ')[0]}; trying again")
            away = True
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            continue
        if away and note is not None:
            note("the API server answers again")
        return result


def problem(error: Any, cluster: Cluster) -> str | None:
    """An `ApiException` as a sentence with a way out; None for what is the caller's own business.

    Those are: 404 of an object that is not there, 409, 410, and a server that is busy.
    """
    message = message_of(error)
    if error.status == 401:
        return (
            f"the API server {cluster.server} does not know you (401): the credentials in the "
            "kubeconfig have expired or are another cluster's; log in again"
        )
    if error.status == 403:
        return _forbidden(message, cluster)
    if error.status == 404 and not _is_status(error):
        return (
            f"the cluster {cluster.server} has no API for this (404): KubeRay is not installed, "
            "or is older than 1.7. Install its operator: docs/operations.md"
        )
    if error.status == 404 and re.search(r'namespaces "[^"]+" not found', message):
        return (
            f"there is no namespace {cluster.namespace!r} in {cluster.server}: set "
            "scale.kubernetes.namespace to the one that the chart was installed in"
        )
    if error.status in (400, 422):
        return f"the API server refuses the object: {message}"
    return None


def _forbidden(message: str, cluster: Cluster) -> str:
    if "exceeded quota" in message:
        return f"{_quota(message)}: wait for other jobs to end, ask for less, or raise the quota"
    if "violates PodSecurity" in message or "admission webhook" in message:
        return f"the cluster's admission refuses the object: {message}"
    # A sub-resource, such as pods/log, is named with its resource.
    right = re.search(r'User "([^"]*)" cannot (\w+) resource "([^"]+)"(.*)', message)
    if right is None:
        return f"the API server refuses this (403): {message}"
    user, verb, resource, rest = right.groups()
    if user == "system:anonymous":
        return (
            f"the API server {cluster.server} does not know you: the kubeconfig has no valid "
            "credentials; log in again"
        )
    group = re.search(r'in API group "([^"]+)"', rest)
    named = f"{resource}.{group[1]}" if group else resource
    return (
        f"{user} may not {verb} {named} in the namespace {cluster.namespace}: "
        f"{cluster.granted_by} grants it"
    )


def _quota(message: str) -> str:
    """`exceeded quota: q, requested: a=1, used: a=2, limited: a=2`, told the other way round."""
    found = re.search(
        r"exceeded quota: ([^,]+), requested: (.+?), used: (.+?), limited: (.+?)(?:\"|$)", message
    )
    if found is None:
        return message
    name, asked, used, limit = found.groups()
    return f"the quota {name!r} is exceeded: asked for {asked}, in use {used}, of {limit}"


def message_of(error: Any) -> str:
    """What the API server says, in one line."""
    try:
        text = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        text = str(error.body or error.reason or error.status)
    return " ".join(str(text).split())


def _is_status(error: Any) -> bool:
    """Whether the server speaks of an object. Of an API that it lacks it speaks in plain text."""
    try:
        return bool(json.loads(error.body).get("kind") == "Status")
    except (ValueError, TypeError, AttributeError):
        return False


def _root_cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    while isinstance(reason, BaseException):
        error, reason = reason, getattr(reason, "reason", None)
    text = " ".join(str(error).split())
    # urllib3 begins with the connection's own representation.
    return re.sub(r"^<?[\w.]+\(.*?\):? ?|^<[^>]+>: ", "", text) or type(error).__name__
