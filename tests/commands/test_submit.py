"""`bayling submit` and `bayling job` in front of a small API server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, Log, checked, forbidden, kubeconfig, pod, serving, status

from bayling.cli import main
from bayling.cluster import following, rayjob

PIPELINE = ["submit", "pipeline", "recipe=quickstart"]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(following, "_TICK_S", 1)
    monkeypatch.setattr(following, "_PAUSE_S", 0.02)
    with serving() as server:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(server, tmp_path)))
        yield server


def _runs(api: ApiServer, *lines: str, **end: Any) -> None:
    """Let each job that is made say these lines and end so."""

    def on_create(made: dict[str, Any]) -> None:
        name = made["metadata"]["name"]
        stamped = [(f"2026-01-01T00:00:{n:02}Z", line) for n, line in enumerate(lines)]
        api.logs["s"] = Log(stamped)
        api.pods = [pod("s", name, rayjob.SUBMITTER, "Succeeded")]
        over = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
        api.change(name, **(end or over))

    api.on_create = on_create


def _only(api: ApiServer) -> dict[str, Any]:
    (made,) = api.rayjobs.values()
    return made


def test_a_stage_becomes_a_job_whose_log_and_end_are_those_of_the_command(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _runs(api, "data begins", "serve done in 14 s")
    assert main(PIPELINE) == 0
    told = capsys.readouterr()
    assert told.out == "data begins\nserve done in 14 s\n"
    made = _only(api)
    name = made["metadata"]["name"]
    assert f"{name} succeeded" in told.err
    assert name.startswith("quickstart-pipeline-") and len(name) <= 47
    assert made["spec"]["entrypoint"] == (
        "python -m bayling.cli run recipe=quickstart output_dir=/mnt/bayling/outputs "
        "models_dir=/mnt/bayling/models"
    )
    assert api.times("POST", "dryRun=All") == 1, "checked by the server before it is made"
    assert list(api.claims) == ["bayling-jobs"], "the first job makes the release's claim"
    checked(made)


def test_the_same_command_finds_its_job_again(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PIPELINE, "--no-wait"]) == 0
    assert main([*PIPELINE, "--no-wait"]) == 0
    assert api.times("POST", "rayjobs\\?.*dryRun") == 1 and len(api.rayjobs) == 1
    assert "is starting already" in capsys.readouterr().err
    # Other machines for the same work are the same job.
    assert main([*PIPELINE, "scale.workers=4", "--no-wait"]) == 2
    assert "with another image, scale or environment: end it first" in capsys.readouterr().err
    # Other work is another job.
    assert main([*PIPELINE, "train.learning_rate=0.002", "--no-wait"]) == 0
    assert len(api.rayjobs) == 2


def test_a_job_that_is_done_is_not_done_again(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _runs(api, "done")
    assert main(PIPELINE) == 0 and main(PIPELINE) == 0
    assert "succeeded already" in capsys.readouterr().err
    assert api.times("POST", "rayjobs") == 2, "once to try, once to make"


def test_the_look_at_a_cluster_is_taken_as_often_as_it_is_asked_for(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _runs(api, "nothing is wrong with it")
    assert main(["submit", "preflight"]) == 0 and main(["submit", "preflight"]) == 0
    assert capsys.readouterr().out.count("nothing is wrong") == 2
    assert _only(api)["spec"]["entrypoint"].startswith("python -m bayling.cli preflight")


def test_a_job_that_failed_begins_again_under_its_name(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _runs(
        api,
        "train begins",
        "bayling: the disk is full",
        jobDeploymentStatus="Failed",
        jobStatus="FAILED",
        reason="AppFailed",
        message="Job entrypoint command failed with exit code 1, last available logs",
        failed=1,
    )
    assert main(PIPELINE) == 1
    first = _only(api)["metadata"]
    assert f"bayling: {first['name']}: the stage ended with exit code 1: the disk is full" in (
        capsys.readouterr().err
    )
    _runs(api, "train goes on")
    assert main(PIPELINE) == 0
    assert _only(api)["metadata"]["name"] == first["name"]
    assert "it begins again, and goes on from what is there" in capsys.readouterr().err


def test_the_gates_no_is_no_failure(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    _runs(
        api,
        "bayling: version 3 of bayling was not promoted",
        jobDeploymentStatus="Failed",
        jobStatus="FAILED",
        reason="AppFailed",
        message="Job entrypoint command failed with exit code 3, last available logs",
    )
    assert main(PIPELINE) == 3
    assert "version 3 of bayling was not promoted" in capsys.readouterr().err


def test_another_process_may_be_faster(api: ApiServer) -> None:
    _runs(api, "done")
    conflict = status(409, "already exists", "AlreadyExists")
    # Between the look and the making: somebody makes the very job.
    main([*PIPELINE, "--no-wait"])
    made = _only(api)
    api.refuse = [("GET", f"rayjobs/{made['metadata']['name']}$", 404, status(404, "not found"), 1)]
    api.refuse += [("POST", "rayjobs", 409, conflict, 1)]
    assert main(PIPELINE) == 0
    assert len(api.rayjobs) == 1


@pytest.mark.parametrize(
    ("method", "path", "code", "body", "sentence"),
    [
        ("GET", "configmaps", 403, forbidden("get", "configmaps"), "jane may not get configmaps"),
        (
            "POST",
            "rayjobs",
            403,
            forbidden("create", "rayjobs", "ray.io"),
            "jane may not create rayjobs.ray.io in the namespace ml: the Role bayling-submit",
        ),
        ("GET", "ray.io", 404, "404 page not found", "KubeRay is not installed"),
        ("GET", "configmaps", 401, status(401, "Unauthorized"), "log in again"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    api: ApiServer,
    capsys: pytest.CaptureFixture[str],
    method: str,
    path: str,
    code: int,
    body: dict[str, Any] | str,
    sentence: str,
) -> None:
    api.refuse = [(method, path, code, body, 9)]
    assert main(PIPELINE) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
    assert not api.rayjobs


def test_somebody_elses_claim_is_not_made(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PIPELINE, "scale.kubernetes.storage_claim=nfs"]) == 2
    assert "there is no PersistentVolumeClaim 'nfs'" in capsys.readouterr().err
    assert not api.claims and not api.rayjobs
    modes = {"accessModes": ["ReadWriteMany"]}
    api.claims["nfs"] = {"metadata": {"name": "nfs"}, "spec": modes}
    assert main([*PIPELINE, "scale.kubernetes.storage_claim=nfs", "--no-wait"]) == 0
    template = _only(api)["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert "affinity" not in template["spec"], "its volume can be on many nodes"


def test_what_would_be_lost_is_refused(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PIPELINE, "output_dir=/home/me/outputs"]) == 2
    assert "is not below scale.kubernetes.storage_path=/mnt/bayling" in capsys.readouterr().err
    api.config_maps["bayling-jobs"]["storage-claim"] = ""
    assert main(PIPELINE) == 2
    assert "nowhere to keep what it makes" in capsys.readouterr().err
    assert not api.rayjobs


def test_a_releases_team_comes_along(api: ApiServer) -> None:
    api.config_maps["bayling-jobs"] |= {"team": "translators", "queue": "translators"}
    assert main([*PIPELINE, "--no-wait"]) == 0
    made = _only(api)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "translators"
    assert made["spec"]["entrypoint"].endswith("team=translators"), "MLflow's experiment, too"


def test_jobs_are_listed_looked_at_and_stopped(
    api: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["job", "list"]) == 0
    assert "no jobs" in capsys.readouterr().err
    assert main([*PIPELINE, "--id", "mine", "--no-wait", "team=t"]) == 0
    capsys.readouterr()
    assert main(["job", "list"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:4] == ["mine", "pipeline", "t", "starting"]
    assert main(["job", "logs", "mine"]) == 2
    assert "has said nothing yet (it is starting)" in capsys.readouterr().err
    api.logs["s"] = Log([("2026-01-01T00:00:00Z", "hello")])
    api.pods = [pod("s", "mine", rayjob.SUBMITTER)]
    capsys.readouterr()
    assert main(["job", "logs", "mine"]) == 0
    assert capsys.readouterr().out == "hello\n"
    api.events = [{"type": "Warning", "message": "exceeded quota: q, requested: a, used: b, "
                   "limited: c", "involvedObject": {"name": "mine-abcde"},
                   "metadata": {"name": "e", "namespace": "ml"}}]  # fmt: skip
    assert main(["job", "status", "mine"]) == 0
    told = capsys.readouterr().out
    assert "mine starting, began" in told and "the quota 'q' is exceeded" in told
    assert main(["job", "stop", "mine"]) == 0
    assert not api.rayjobs
    assert main(["job", "stop", "mine"]) == 2
    assert "there is no job 'mine'" in capsys.readouterr().err


def test_ctrl_c_leaves_the_job_running(tmp_path: Path, api: ApiServer) -> None:
    """In a process of its own, as a terminal would interrupt it."""
    import signal

    command = [sys.executable, "-m", "bayling.cli", *PIPELINE, "--id", "mine"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    # A log on which nothing comes, as while a step is long.
    api.logs["s"] = Log([("2026-01-01T00:00:00Z", "hello")], quiet_s=20)
    api.pods = [pod("s", "mine", rayjob.SUBMITTER)]
    deadline = time.monotonic() + 30
    while not api.logs["s"].asked and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the job goes on; to come back: bayling job logs mine --follow" in told
    assert "mine" in api.rayjobs and not api.times("DELETE", "")


# ---- without any cluster ----


def test_a_dry_run_needs_no_cluster_and_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    command = [sys.executable, "-m", "bayling.cli", *PIPELINE, "--dry-run"]
    taken = []
    for _ in range(2):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(time.monotonic() - began)
    assert min(taken) < 2
    checked(yaml.safe_load(done.stdout))
    assert "nobody was asked" in done.stderr and "ConfigMap bayling-jobs" in done.stderr


def test_dry_runs_do_not_read_a_tracking_server_of_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://laptop:5000")
    assert main([*PIPELINE, "--dry-run", "-n", "ml"]) == 0
    told = capsys.readouterr().out
    assert "laptop" not in told and "http://bayling-mlflow.ml.svc:5000" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve"], "serve is no job that ends: charts/serving"),
        (["trian"], "did you mean train?"),
        (["train", "--id", "x" * 48], "has 48 characters, and KubeRay takes 47 at most"),
        (["train", "--id", "My_Job"], "use small letters, digits and '-'"),
        (["train", "recipe=quikstart"], "did you mean quickstart?"),
        (["train", "team=A Team"], "team='A Team'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *arguments, "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_without_a_kubeconfig_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(PIPELINE) == 2
    assert f"there is no kubeconfig at {tmp_path}/none" in capsys.readouterr().err
