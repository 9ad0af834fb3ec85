"""Releases of Helm's own at a real API server, and what they left there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from charted import Object, chart
from cluster_server import RealServer
from helm_python import Config, _native


@dataclass(frozen=True)
class Releases:
    """Those of a namespace.

    Its options are the library's below the package, which has more of them: how objects are sent,
    and whether hooks run.
    """

    server: RealServer
    namespace: str
    config: Config
    server_side: bool
    """Helm 4's way, by server-side apply; else Helm 3's, by patches that it makes itself."""

    def install(self, name: str, release: str, values: Object, **options: object) -> None:
        """helm install, not waiting for pods."""
        options = {"server_side_apply": self.server_side, **options}
        self._call("helm_install", name, release, values, options)

    def upgrade(self, name: str, release: str, values: Object, **options: object) -> None:
        """helm upgrade, with these values only. How objects are sent, the release remembers."""
        self._call("helm_upgrade", name, release, values, {"reset_values": True, **options})

    def rollback(self, release: str, **options: object) -> None:
        """helm rollback, to the revision before."""
        _native.call_status("helm_rollback", self.config._raw(), release, json.dumps(options))

    def uninstall(self, release: str) -> None:
        """helm uninstall."""
        self.config.uninstall(release)

    def objects(self) -> dict[str, Object]:
        """All that is there by kind and name, as far as a release decides on it; no records of
        Helm's."""
        found = {}
        for name, each in self.server.inside(self.namespace).items():
            metadata = dict(each["metadata"])
            if name.startswith("Secret sh.helm.") or "deletionTimestamp" in metadata:
                continue
            for key in ("managedFields", "resourceVersion"):
                metadata.pop(key, None)
            found[name] = {**each, "metadata": metadata}
        return found

    def _call(
        self, function: str, name: str, release: str, values: Object, options: Object
    ) -> None:
        nothing = _native.HANDLE(0)
        raw = (self.config._raw(), nothing, chart(name)._raw(), None)
        _native.call_string(function, *raw, release, json.dumps(values), json.dumps(options))


@contextmanager
def releases(server: RealServer, namespace: str, *, server_side: bool = True) -> Iterator[Releases]:
    """Releases in a namespace that this makes."""
    server.namespace(namespace)
    with Config(kubeconfig_path=server.kubeconfig, namespace=namespace) as config:
        yield Releases(server, namespace, config, server_side)


def differing(before: dict[str, Object], after: dict[str, Object]) -> set[str]:
    """Names of what was added, taken away, or changed."""
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name)}
