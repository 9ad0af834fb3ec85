"""`bayling submit STAGE`: a stage as a job, on Kubernetes or on any Ray cluster."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from bayling.errors import GateRefused, StageFailed, UserError

if TYPE_CHECKING:
    from bayling.cluster.installation import Installation
    from bayling.cluster.kubernetes_api import Cluster
    from bayling.config import Config

PLACES = ("kubernetes", "ray")
GRANTED_BY = "the Role RELEASE-submit of charts/platform (jobs.submit.subjects)"
INTERRUPTED = 130
_LOOK = "preflight"
"""It has no result that lasts: once done, it is done again."""
_SERVE = (
    "serve is no job that ends: charts/serving keeps the champion served, helm install serving "
    "charts/serving"
)
_EPILOG = """examples:
  bayling submit pipeline recipe=quickstart              as a RayJob, in the kubeconfig's cluster
  bayling submit train recipe=bayling-2-7b scale=cluster --namespace ml
  bayling submit preflight scale=cluster scale.kubernetes.network=efa
  bayling submit pipeline recipe=quickstart --dry-run    prints the RayJob; asks nobody
  bayling submit train recipe=smoke --to ray --address http://HEAD:8265
The same command finds its job again and follows it; after a failure it goes on from what is there.
"""


def register(commands: Any) -> None:
    """Add the command to the parsers of `bayling`."""
    text = "a stage as a job on Kubernetes (a RayJob) or on a Ray cluster"
    added = commands.add_parser(
        "submit",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(work=_submit)
    added.add_argument(
        "stage", metavar="STAGE", help="data, train, evaluate, promote, pipeline (all) or preflight"
    )
    added.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, as on a laptop"
    )
    added.add_argument(
        "--id", metavar="NAME", help="the job's name; made of what it computes if it is not given"
    )
    added.add_argument("--dry-run", action="store_true", help="print what would be sent")
    added.add_argument("--no-wait", action="store_true", help="do not follow the job")
    where_to(added)


def where_to(parser: argparse.ArgumentParser) -> None:
    """The options that name a cluster; `job` has them too."""
    parser.add_argument("--to", choices=PLACES, default=PLACES[0], help="default: %(default)s")
    parser.add_argument("-n", "--namespace", help="Kubernetes: that of the job")
    parser.add_argument("--context", help="Kubernetes: a context of the kubeconfig")
    parser.add_argument("--address", help="Ray: the dashboard's; default: $RAY_ADDRESS")


def reached(arguments: argparse.Namespace, config: Config | None = None) -> Cluster:
    """The Kubernetes cluster that options, or else the configuration, name."""
    from bayling.cluster.kubernetes_api import connect
    from bayling.pods import KubernetesConfig

    given = config.scale.kubernetes if config else KubernetesConfig()
    return connect(
        context=arguments.context or given.context,
        kubeconfig=given.kubeconfig,
        namespace=arguments.namespace or given.namespace,
        granted_by=GRANTED_BY.replace("RELEASE", given.release),
    )


def _submit(arguments: argparse.Namespace) -> int:
    from bayling.cluster.entrypoint import COMMANDS

    if arguments.stage == "serve":
        raise UserError(_SERVE)
    if arguments.stage not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(arguments.stage, COMMANDS, n=1)
        raise UserError(
            f"there is no stage {arguments.stage!r} to submit (it can be {', '.join(COMMANDS)})"
            + (f": did you mean {near[0]}?" if near else "")
        )
    if arguments.id is not None:
        _check_id(arguments.id)
    return _to_ray(arguments) if arguments.to == "ray" else _to_kubernetes(arguments)


def _check_id(name: str) -> None:
    from bayling.cluster.rayjob import LONGEST_NAME

    if len(name) > LONGEST_NAME:
        raise UserError(
            f"--id {name} has {len(name)} characters, and KubeRay takes {LONGEST_NAME} at most: "
            "choose a shorter one"
        )
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise UserError(
            f"--id {name!r}: use small letters, digits and '-', a letter first: it names objects "
            "in Kubernetes"
        )


def _to_kubernetes(arguments: argparse.Namespace) -> int:
    from bayling.cluster.installation import Installation
    from bayling.config import compose

    config = compose(arguments.overrides)
    given = config.scale.kubernetes
    if arguments.dry_run:
        namespace = arguments.namespace or given.namespace
        return _show(arguments, config, Installation.assume(given.release, namespace))

    from bayling.cluster import kubernetes_jobs
    from bayling.cluster.kubernetes_jobs import State
    from bayling.cluster.rayjob import SPEC

    cluster = reached(arguments, config)
    there = kubernetes_jobs.installation(cluster, given)
    if there.release not in ("", given.release):
        _say(f"this is for the release {there.release!r}, the only one in {cluster.namespace}")
    there = kubernetes_jobs.storage(cluster, there, given)
    wanted = _manifest(arguments, config, there, cluster.namespace)
    name = wanted["metadata"]["name"]
    found = kubernetes_jobs.get(cluster, name)
    if found is not None:
        state = State.of(found)
        if state.succeeded and arguments.stage != _LOOK:
            _say(f"{name} succeeded already: nothing to do. `bayling job stop {name}` forgets it")
            return 0
        if state.over:
            _say(f"{name} {state.word} before: it begins again, and goes on from what is there")
            kubernetes_jobs.delete(cluster, name)
            found = None
        elif (found["metadata"].get("annotations") or {}).get(SPEC) != (
            wanted["metadata"]["annotations"][SPEC]
        ):
            raise UserError(
                f"{name} is {state.word} already, with another image, scale or environment: end "
                f"it first, `bayling job stop {name} --namespace {cluster.namespace}`, and it "
                "goes on from its checkpoint with these"
            )
        else:
            _say(f"{name} is {state.word} already")
    if found is None:
        kubernetes_jobs.create(cluster, wanted)
        _say(f"{name} was made in the namespace {cluster.namespace}")
    if arguments.no_wait:
        _say(f"bayling job logs {name} --follow --namespace {cluster.namespace}")
        return 0
    return followed(cluster, name)


def followed(cluster: Cluster, name: str) -> int:
    """Follow a job to its end; the command's exit code.

    Raises:
        StageFailed: the job failed, and why.
        GateRefused: the gate said no.
    """
    from bayling.cluster import causes, following
    from bayling.cluster.screen import Screen

    back = f"bayling job logs {name} --follow --namespace {cluster.namespace}"
    try:
        state = following.follow(cluster, name, Screen())
    except KeyboardInterrupt:
        stop = f"bayling job stop {name} --namespace {cluster.namespace}"
        _say(f"the job goes on; to come back: {back}\n         to end it: {stop}")
        return INTERRUPTED
    except UserError as error:  # the server is away for long, or a login has ended
        raise type(error)(f"{error}. The job {name} goes on: {back}") from None
    if state.succeeded:
        _say(f"{name} succeeded")
        return 0
    reason, code = following.explain(cluster, state)
    if code == causes.GATE_SAID_NO:
        raise GateRefused(f"{name}: {reason}")
    if code == UserError.exit_code:
        raise UserError(f"{name}: {reason}")
    raise StageFailed(f"{name}: {reason}")


def _show(arguments: argparse.Namespace, config: Config, there: Installation) -> int:
    """`--dry-run`: the RayJob as YAML, and what a cluster would have been asked."""
    import yaml  # type: ignore[import-untyped]

    given = config.scale.kubernetes
    wanted = _manifest(arguments, config, there, arguments.namespace or given.namespace)
    print(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=1000), end="")
    read = ["the address of MLflow", "the Secret of its account", "the service account"]
    read += [] if given.image else ["the image"]
    read += [] if given.storage_claim else ["the storage"]
    print(
        f"bayling: nobody was asked: {', '.join(read)}, team and queue are the chart's defaults "
        f"here, and are read from the ConfigMap {there.config_map} when the job is sent",
        file=sys.stderr,
    )
    return 0


def _manifest(
    arguments: argparse.Namespace, config: Config, there: Installation, namespace: str | None
) -> dict[str, Any]:
    """The RayJob of a command."""
    from bayling.cluster import rayjob
    from bayling.config import compose

    given, stage = config.scale.kubernetes, arguments.stage
    overrides = list(arguments.overrides)
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    if given.storage_claim or there.claim:
        for key in ("output_dir", "models_dir"):
            folder = f"{given.storage_path}/{key.removesuffix('_dir')}"
            if key not in keys:
                overrides.append(f"{key}={folder if key == 'models_dir' else folder + 's'}")
    elif stage != _LOOK:
        raise UserError(
            "a job has nowhere to keep what it makes: set jobs.storage.enabled in the chart, or "
            "scale.kubernetes.storage_claim to a PersistentVolumeClaim"
        )
    if config.team is None and there.team:
        overrides.append(f"team={there.team}")
    config = compose(overrides)
    if stage != _LOOK and not f"{config.output_dir}/".startswith(f"{given.storage_path}/"):
        raise UserError(
            f"output_dir={config.output_dir} is not below scale.kubernetes.storage_path="
            f"{given.storage_path}: what a job writes there would go with its pod"
        )
    name = arguments.id or _id(config, stage)
    return rayjob.manifest(
        rayjob.Job(name, stage, overrides, config.team), config.scale, there, namespace
    )


def _id(config: Config, stage: str) -> str:
    """The same for the same work, whatever machines it is given: name, stage, fingerprint."""
    from bayling.cluster.rayjob import LONGEST_NAME
    from bayling.pipeline import Pipeline
    from bayling.stage import fingerprint
    from bayling.watch import Plain

    if stage == _LOOK:
        key, name = fingerprint(config.scale), config.scale.name
    else:
        prints = Pipeline(config, Plain()).fingerprints
        key, name = prints["serve" if stage == "pipeline" else stage], config.name
    tail = f"{stage}-{key[:8]}"
    head = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
    head = head if head[0].isalpha() else f"r{head}"
    return f"{head[: LONGEST_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def _to_ray(arguments: argparse.Namespace) -> int:
    from bayling.cluster import ray_jobs
    from bayling.config import compose

    config = compose(arguments.overrides)
    # The address is where this command goes; the job is on the cluster already.
    address = arguments.address or config.scale.ray_address
    address = None if address == "auto" else address
    overrides = [o for o in arguments.overrides if not o.startswith("scale.ray_address=")]
    name = arguments.id or _id(config, arguments.stage)
    if arguments.dry_run:
        from bayling.cluster.entrypoint import command

        print(f"{name}: {' '.join(command(arguments.stage, overrides))}")
        return 0
    client = ray_jobs.connect(address)
    before = ray_jobs.attempts(client, name)
    if before and not before[0].over:
        _say(f"{name} is {before[0].word} already")
        attempt = before[0]
    elif before and before[0].status == "SUCCEEDED" and arguments.stage != _LOOK:
        _say(f"{name} succeeded already: nothing to do")
        return 0
    else:
        attempt = ray_jobs.submit(client, name, arguments.stage, overrides, config.team)
        _say(f"{name} was sent" + (", and goes on from what is there" if before else ""))
    if arguments.no_wait:
        _say(f"bayling job logs {name} --to ray --follow")
        return 0
    return followed_on_ray(client, attempt)


def followed_on_ray(client: Any, attempt: Any) -> int:
    """Follow a job on a Ray cluster to its end; the command's exit code.

    Raises:
        StageFailed: the job failed, and why.
        GateRefused: the gate said no.
    """
    from bayling.cluster import causes, ray_jobs
    from bayling.cluster.screen import Screen

    try:
        attempt = ray_jobs.follow(client, attempt, Screen())
    except KeyboardInterrupt:
        _say(f"the job goes on; to come back: bayling job logs {attempt.job} --to ray --follow")
        return INTERRUPTED
    if attempt.status == "SUCCEEDED":
        _say(f"{attempt.job} succeeded")
        return 0
    why = causes.last_words(ray_jobs.last_lines(client, attempt)) or attempt.message
    if f"exit code {causes.GATE_SAID_NO}" in attempt.message:
        raise GateRefused(f"{attempt.job}: {why}")
    raise StageFailed(f"{attempt.job} {attempt.word}: {why}")


def _say(text: str) -> None:
    print(f"bayling: {text}", file=sys.stderr, flush=True)
