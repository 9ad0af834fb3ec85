"""Passwords over upgrades, in front of a small API server that has some Secrets already."""

from __future__ import annotations

import base64

import yaml
from charted import Object, chart, one
from helm_python import Config
from small_cluster import small_cluster


def _rendered(kubeconfig: str, values: Object) -> list[Object]:
    with Config(kubeconfig_content=kubeconfig, storage_driver="memory", namespace="ml") as config:
        texts = config.render(chart("platform"), values, name="first", namespace="ml")
    return [
        each
        for path, text in texts.items()
        if path.endswith(".yaml")
        for each in yaml.load_all(text, yaml.CSafeLoader)
        if each
    ]


def _opened(secret: Object) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def _checksums(found: list[Object]) -> dict[str, str]:
    deployment = one(found, "Deployment", "first-mlflow")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    return {key: value for key, value in annotations.items() if key.startswith("checksum/")}


POSTGRESQL = {"mlflow": {"database": {"type": "postgresql"}}}


def test_passwords_are_drawn_once_and_kept() -> None:
    with small_cluster({}) as kubeconfig:
        installed = _rendered(kubeconfig, POSTGRESQL)
        again = _rendered(kubeconfig, POSTGRESQL)
    names = ("first-mlflow", "first-jobs-mlflow", "first-postgresql")
    there = {name: _opened(one(installed, "Secret", name)) for name in names}
    assert all(there[name] != _opened(one(again, "Secret", name)) for name in names)
    assert len(there["first-mlflow"]["admin-password"]) == 32
    with small_cluster(there) as kubeconfig:
        upgraded = _rendered(kubeconfig, POSTGRESQL)
    assert {name: _opened(one(upgraded, "Secret", name)) for name in names} == there
    # Nothing has changed, so no pod starts anew.
    assert _checksums(upgraded) == _checksums(installed)


def test_a_password_that_was_changed_stays_changed_and_rolls_the_pods() -> None:
    with small_cluster({}) as kubeconfig:
        installed = _rendered(kubeconfig, {})
    there = {
        name: _opened(one(installed, "Secret", name))
        for name in ("first-mlflow", "first-jobs-mlflow")
    }
    there["first-mlflow"]["admin-password"] = "changed by hand"
    with small_cluster(there) as kubeconfig:
        upgraded = _rendered(kubeconfig, {})
    secret = _opened(one(upgraded, "Secret", "first-mlflow"))
    assert secret["admin-password"] == "changed by hand"
    before, after = _checksums(installed), _checksums(upgraded)
    assert {key for key in before if before[key] != after[key]} == {"checksum/accounts"}


def test_a_secret_of_ones_own_rolls_the_pods_too() -> None:
    values = {"mlflow": {"auth": {"existingSecret": "admin"}}}
    seen = set()
    for password in ("one", "two", "two"):
        with small_cluster({"admin": {"admin-password": password}}) as kubeconfig:
            seen.add(_checksums(_rendered(kubeconfig, values))["checksum/accounts"])
    assert len(seen) == 2
