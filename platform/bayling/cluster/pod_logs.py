"""A container's log, each line once, over any number of connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bayling.cluster.kubernetes_api import Cluster, explained

_CONNECT_S, _QUIET_S = 10.0, 60.0
"""A connection on which nothing comes for so long is made anew: it may be dead."""


_NONE = (204, 400, 404)
"""Answers for a pod that was never on a node, a container that does not run (yet), and no pod."""


class NoLog(Exception):
    """There is no log, or none yet."""


class Tail:
    """Reads on where the connection before ended.

    The API server starts a log at a whole second (`sinceTime`), so that lines come again; they
    are told by the times that it puts before each.
    """

    def __init__(self, cluster: Cluster, pod: str, container: str) -> None:
        self._cluster, self._pod, self._container = cluster, pod, container
        self._last = ""
        """Time of the last line that was given out."""
        self._same = 0
        """How many lines with this time were."""

    def lines(self, *, follow: bool) -> Iterator[str]:
        """The lines that are new, until the log ends or the connection does.

        Raises:
            Unreachable: the connection broke, or could not be made.
            NoLog: the pod is gone, or its container does not run, or not yet.
        """
        skip = self._same
        for raw in self._raw(follow):
            time, _, text = raw.partition(" ")
            if self._last:
                if _instant(time) < _instant(self._last):
                    continue
                if time == self._last and skip:
                    skip -= 1
                    continue
            if time != self._last:
                self._last, self._same = time, 0
            self._same += 1
            yield text

    def _raw(self, follow: bool) -> Iterator[str]:
        """Whole lines with their times, of one connection."""
        from urllib3.exceptions import ReadTimeoutError

        rest = b""
        with explained(self._cluster):
            response = self._open(follow)
            try:
                for piece in response.stream(2**16):
                    *whole, rest = (rest + piece).split(b"\n")
                    for line in whole:
                        yield line.decode("utf-8", "replace")
            except ReadTimeoutError:
                return  # nothing was said for long: the caller asks again
            finally:
                response.close()
        if rest and not follow:
            # While a log grows, half a line may be the end of a connection: it comes again.
            yield rest.decode("utf-8", "replace")

    def _open(self, follow: bool) -> Any:
        """The response, its body still to be read.

        By hand because the client's `read_namespaced_pod_log` has no `sinceTime`.
        """
        from kubernetes.client import ApiException

        client: Any = self._cluster.client
        query = [("container", self._container), ("timestamps", "true")]
        if follow:
            query.append(("follow", "true"))
        if self._last:
            query.append(("sinceTime", re.sub(r"\.\d+", "", self._last)))
        request = client.param_serialize(
            method="GET",
            resource_path="/api/v1/namespaces/{namespace}/pods/{name}/log",
            path_params={"namespace": self._cluster.namespace, "name": self._pod},
            query_params=query,
            header_params={"Accept": "*/*"},
            auth_settings=["BearerToken"],
        )
        answer = client.call_api(*request, _request_timeout=(_CONNECT_S, _QUIET_S))
        if answer.status in _NONE:
            answer.response.close()
            raise NoLog(answer.status)
        if answer.status != 200:
            body = answer.read().decode("utf-8", "replace")
            raise ApiException.from_response(http_resp=answer, body=body, data=None)
        return answer.response


def _instant(time: str) -> tuple[str, str]:
    """Times of one node in order; fractions of a second have as many digits as they need."""
    seconds, _, fraction = time.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")
