"""What the accounts of both charts may do, as a real API server judges it.

KubeRay's autoscaler has an account of KubeRay's making, which is not here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_server import RealServer
from releases import Releases, releases

pytestmark = pytest.mark.cluster

Rule = tuple[str, str, str]
"""Verb, resource (with its group and sub-resource), name; an empty name is any."""
SUBMITTING: set[Rule] = {
    *((verb, "rayjobs.ray.io", "") for verb in ("get", "list", "watch", "create", "delete")),
    ("list", "pods", ""),
    ("list", "events", ""),
    ("get", "pods/log", ""),
    ("get", "configmaps", "bayling-jobs"),
    ("get", "persistentvolumeclaims", ""),
    ("create", "persistentvolumeclaims", ""),
}
RIGHTS: dict[str, set[Rule]] = {
    "bayling-submit": SUBMITTING,
    "bayling-jobs": set(),
    "bayling-mlflow": set(),
    "serving-ray": set(),
    "serving-rollout": {
        ("get", "rayservices.ray.io", "serving"),
        ("patch", "rayservices.ray.io", "serving"),
    },
}
every_account = pytest.mark.parametrize("account", RIGHTS)


@pytest.fixture(scope="module")
def there(real_server: RealServer) -> Iterator[Releases]:
    real_server.namespace("rights-elsewhere")
    with releases(real_server, "rights") as made:
        subjects = [
            {"kind": "Group", "name": "researchers"},
            {"kind": "User", "name": "jane"},
            {"kind": "ServiceAccount", "name": "ci", "namespace": "rights-elsewhere"},
        ]
        platform = {"ray": {"enabled": True}, "jobs": {"submit": {"subjects": subjects}}}
        made.install("platform", "bayling", platform)
        made.install("serving", "serving", {"monitoring": {"enabled": True}})
        yield made


def _account(name: str, namespace: str = "rights") -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def _rules(server: RealServer, namespace: str, user: str, group: str = "") -> set[Rule]:
    """All that somebody may do with the objects of a namespace, everybody's rights left out."""

    def asked(**who: str) -> set[Rule]:
        body = {"spec": {"namespace": namespace}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        status = server.request("POST", path, body, **who)["status"]
        assert not status.get("incomplete")
        return {
            (verb, f"{resource}.{api}" if api else resource, name)
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for api in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames") or [""]
        }

    who = {"Impersonate_User": user, **({"Impersonate_Group": group} if group else {})}
    return asked(**who) - asked(Impersonate_User=_account("nobody"))


def _may(server: RealServer, user: str, verb: str, resource: str, **where: str) -> bool:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    resource, _, group = resource.partition(".")
    resource, _, part = resource.partition("/")
    attributes = {"verb": verb, "resource": resource, "group": group, "subresource": part}
    body = {"spec": {"resourceAttributes": {**attributes, **where}}}
    return bool(server.request("POST", path, body, Impersonate_User=user)["status"]["allowed"])


@every_account
def test_an_account_has_just_these_rights_in_its_namespace(there: Releases, account: str) -> None:
    assert _rules(there.server, "rights", _account(account)) == RIGHTS[account]


@every_account
def test_an_account_has_none_elsewhere(there: Releases, account: str) -> None:
    for namespace in ("rights-elsewhere", "kube-system"):
        assert not _rules(there.server, namespace, _account(account))
    for verb, resource in (("list", "nodes"), ("list", "namespaces"), ("list", "secrets")):
        assert not _may(there.server, _account(account), verb, resource), resource


def test_no_account_of_a_release_is_missing_here(there: Releases) -> None:
    made = {
        each["metadata"]["name"]
        for each in there.objects().values()
        if each["kind"] == "ServiceAccount"
    }
    assert made == set(RIGHTS)
    assert not {"ClusterRole", "ClusterRoleBinding"} & {
        line.split()[-1]
        for release in ("bayling", "serving")
        for line in there.config.status(release)["manifest"].splitlines()
        if line.startswith("kind:")
    }


FORBIDDEN = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "secrets"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "pods/exec"),
    ("create", "pods/attach"),
    ("create", "pods/portforward"),
    ("create", "deployments.apps"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "serviceaccounts"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("patch", "roles.rbac.authorization.k8s.io"),
    ("patch", "rayjobs.ray.io"),
    ("patch", "rayjobs.ray.io/status"),
    ("patch", "rayclusters.ray.io"),
    ("create", "rayservices.ray.io"),
    ("delete", "rayservices.ray.io"),
    ("list", "rayservices.ray.io"),
    ("patch", "rayservices.ray.io/status"),
    ("delete", "persistentvolumeclaims"),
    ("list", "configmaps"),
    ("patch", "configmaps"),
    ("patch", "networkpolicies.networking.k8s.io"),
    ("patch", "resourcequotas"),
    ("*", "*.*"),
]


@every_account
def test_what_nobody_is_to_do_is_refused(there: Releases, account: str) -> None:
    allowed = [
        f"{verb} {resource}"
        for verb, resource in FORBIDDEN
        if _may(there.server, _account(account), verb, resource, namespace="rights")
    ]
    assert not allowed


def test_the_rollout_controller_has_one_rayservice(there: Releases) -> None:
    account = _account("serving-rollout")
    for name, allowed in (("serving", True), ("another", False)):
        where = {"namespace": "rights", "name": name}
        assert _may(there.server, account, "patch", "rayservices.ray.io", **where) is allowed


def test_those_who_are_named_may_submit_too(there: Releases) -> None:
    server = there.server
    assert _rules(server, "rights", "jane") == SUBMITTING
    assert _rules(server, "rights", "joe", "researchers") == SUBMITTING
    assert _rules(server, "rights", _account("ci", "rights-elsewhere")) == SUBMITTING
    assert not _rules(server, "rights", "joe")
    assert not _rules(server, "rights", _account("ci"))


def test_a_claim_of_ones_own_spares_the_right_to_make_one(real_server: RealServer) -> None:
    with releases(real_server, "rights-claim") as made:
        made.install("platform", "bayling", {"jobs": {"storage": {"existingClaim": "nfs"}}})
        held = _rules(real_server, "rights-claim", _account("bayling-submit", "rights-claim"))
        assert held == SUBMITTING - {("create", "persistentvolumeclaims", "")}
