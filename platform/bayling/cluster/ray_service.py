"""A RayService, as a place where versions are rolled out, seen from outside its Ray cluster.

What is to run is the object's `serveConfigV2`, which KubeRay gives to Ray Serve whenever it
changes and to every new Ray cluster. Nobody else writes that field: the chart leaves it out. What
runs is told by the object's status, and, while it answers, by the API itself.

It knows KubeRay and HTTP, not what is served: how versions are described and named is passed in,
and plain data goes between.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import httpx

from bayling.cluster.kubernetes_api import REQUEST_S, Cluster, explained
from bayling.cluster.observed import observed
from bayling.errors import UserError

if TYPE_CHECKING:
    from kubernetes.client import CustomObjectsApi

log = logging.getLogger(__name__)

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayservices"
FIELD_MANAGER = "bayling-rollout"
_TRIES = 5
"""How often a change is tried while others change the object: KubeRay writes its status into it."""
_PAUSE_S = 0.2
_WITHIN_S = 10.0
_ANSWER_WITHIN_S = 300.0
"""What an engine that is scaled to zero may need, and an answer after that."""
_FAILED, _UNHEALTHY, _RUNNING = "DEPLOY_FAILED", "UNHEALTHY", "RUNNING"


class RayService:
    """Runs versions side by side. See `bayling.serve.rollout.target`."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        describe: Callable[[Mapping[str, float], Collection[str]], Mapping[str, Any]],
        api: str,
        key: Callable[[], str],
        engine_prefix: str,
    ) -> None:
        """
        Args:
            describe: shares and leaving versions as Ray Serve's own configuration file has them.
            api: the base URL of what is served.
            key: gives a key that the API knows; asked for every request, since keys are rotated.
            engine_prefix: what the names of applications with engines begin with; the version is
                the rest.
        """
        self._cluster = cluster
        self._name = name
        self._describe = describe
        self._key = key
        self._engine_prefix = engine_prefix
        self._http = httpx.Client(base_url=api, timeout=_WITHIN_S)
        self._wanted: str | None = None
        """What was given last, to be put back where it is lost."""
        self._unwell = ""

    def apply(self, shares: Mapping[str, float], leaving: Collection[str]) -> None:
        """Run just these versions, with these shares. Returns at once.

        Raises:
            UserError: there is no such RayService, or no right to change it.
            Unreachable: the API server does not answer.
        """
        wanted = json.dumps(self._describe(shares, leaving), ensure_ascii=False)
        self._write(wanted, self._read())
        self._wanted = wanted

    def versions(self) -> set[str]:
        """Those that are to run, by the object itself.

        Raises:
            UserError, Unreachable: as `apply`.
        """
        try:
            described = json.loads(_config(self._read()) or "{}")
            names = [one["name"] for one in described["applications"]]
        except (ValueError, KeyError, TypeError):  # nothing yet, or somebody wrote it by hand
            return set()
        return {
            name.removeprefix(self._engine_prefix)
            for name in names
            if name.startswith(self._engine_prefix)
        }

    def observe(self, since: float | None) -> dict[str, Any]:
        """What runs at this moment.

        Raises:
            UserError, Unreachable: as `apply`.
        """
        there = self._read()
        if self._wanted is not None and _config(there) != self._wanted:
            log.warning("the RayService %s had lost what is to run: it is put back", self._name)
            self._write(self._wanted, there)
        report, figures, no_traffic = self._report(), None, None
        if since is not None:
            try:
                figures = self._get("/internal/versions", since=since)
            except (httpx.HTTPError, ValueError) as error:
                no_traffic = _reason(error)
        told = report.get("engines", {})
        running = {
            name.removeprefix(self._engine_prefix): _engines(status, told.get(name))
            for name, status in _applications(there).items()
            if name.startswith(self._engine_prefix)
        }
        return observed(report, running, figures, no_traffic)

    def ask(self, model: str, prompt: str, max_tokens: int) -> Mapping[str, Any]:
        """The API's answer to a prompt, or the `status` and the `error` that it refused with.
        Blocks.

        Raises:
            httpx.HTTPError: the API does not answer.
        """
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
        }
        answer = self._http.post(
            "/v1/chat/completions", json=body, headers=self._headers(), timeout=_ANSWER_WITHIN_S
        )
        if answer.is_success:
            return {"text": answer.json()["choices"][0]["message"]["content"] or ""}
        return {"status": answer.status_code, "error": _refusal(answer)}

    def _read(self) -> dict[str, Any]:
        """The object.

        Raises:
            UserError, Unreachable: as `apply`.
        """
        from kubernetes.client import ApiException

        try:
            with explained(self._cluster):
                found: Any = self._objects.get_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    self._cluster.namespace,
                    PLURAL,
                    self._name,
                    _request_timeout=REQUEST_S,
                )
        except ApiException as error:
            if error.status != 404:
                raise
            raise UserError(
                f"there is no RayService {self._name!r} in the namespace "
                f"{self._cluster.namespace!r}: install charts/serving, or name another"
            ) from None
        return dict(found)

    def _write(self, wanted: str, there: dict[str, Any]) -> None:
        """Make it the object's `serveConfigV2`.

        The patch holds for the state that was read only: of two writers the second one looks
        again before it writes.
        """
        from kubernetes.client import ApiException

        for attempt in range(_TRIES):
            if _config(there) == wanted:
                return
            patch = {
                "metadata": {"resourceVersion": there["metadata"]["resourceVersion"]},
                "spec": {"serveConfigV2": wanted},
            }
            try:
                with explained(self._cluster):
                    self._objects.patch_namespaced_custom_object(
                        GROUP,
                        VERSION,
                        self._cluster.namespace,
                        PLURAL,
                        self._name,
                        patch,
                        field_manager=FIELD_MANAGER,
                        _content_type="application/merge-patch+json",
                        _request_timeout=REQUEST_S,
                    )
                return
            except ApiException as error:
                if error.status not in (404, 409) or attempt == _TRIES - 1:
                    raise
            time.sleep(_PAUSE_S)
            there = self._read()

    @property
    def _objects(self) -> CustomObjectsApi:
        return self._cluster.custom

    def _report(self) -> dict[str, Any]:
        """What the API says of itself; nothing while it does not answer."""
        try:
            report = self._get("/internal/report")
        except (httpx.HTTPError, ValueError) as error:  # the next look may tell
            if (why := _reason(error)) != self._unwell:
                log.warning("the API says nothing of what it serves: %s", why)
                self._unwell = why
            return {}
        self._unwell = ""
        return report

    def _get(self, path: str, **asked: float) -> dict[str, Any]:
        answer = self._http.get(path, params=asked, headers=self._headers())
        if answer.is_error:
            raise httpx.HTTPStatusError(
                f"{path} is answered {answer.status_code}: {_refusal(answer)}",
                request=answer.request,
                response=answer,
            )
        body: dict[str, Any] = answer.json()
        return body

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key()}"}


def _config(there: Mapping[str, Any]) -> str | None:
    config: str | None = there.get("spec", {}).get("serveConfigV2")
    return config


def _applications(there: Mapping[str, Any]) -> dict[str, Any]:
    """What KubeRay says of the applications of the cluster that has the traffic, or, before there
    is one, of the one that is on its way."""
    status = there.get("status") or {}
    for side in ("activeServiceStatus", "pendingServiceStatus"):
        if told := (status.get(side) or {}).get("applicationStatuses"):
            return dict(told)
    return {}


def _engines(status: Mapping[str, Any], told: Mapping[str, int] | None) -> dict[str, Any]:
    """One version's engines.

    Args:
        status: what KubeRay says, which counts no replicas and is some seconds old.
        told: what the API says; None while it does not answer.
    """
    state = status.get("status", "")
    running = told["running"] if told else int(state == _RUNNING)
    broken = state == _FAILED or (state == _UNHEALTHY and not running)
    parts = (status.get("serveDeploymentStatuses") or {}).values()
    messages = [part["message"] for part in parts if part.get("message")]
    return {
        "running": running,
        "starting": told["starting"] if told else 0,
        "ready": state == _RUNNING or running > 0,
        "failed": (messages or [status.get("message", "")]) if broken else None,
    }


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _refusal(answer: httpx.Response) -> str:
    """Why the API refused, in its own words where it has any."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
