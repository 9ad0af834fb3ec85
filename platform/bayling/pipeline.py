"""The stages in order; one whose inputs are unchanged is not run again.

A stage's fingerprint covers the configuration that decides what comes out of it, the seed, the
versions that matter and the fingerprints of the stages before it. Its output lies in a folder of
that name, so that going back to an earlier setting finds the earlier output.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import defaultdict
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bayling import __version__
from bayling.cluster import local
from bayling.cluster.rayjob import JOB_VARIABLE
from bayling.config import Config
from bayling.errors import GateRefused, UserError
from bayling.stage import MANIFEST, Context, Manifest, TrackedRun, fingerprint
from bayling.stages import STAGES
from bayling.train import placement
from bayling.weights.fetch import ensure
from bayling.weights.lock import held


class Watcher(Protocol):
    """Who is told what happens: a terminal, a log."""

    def preparing(self, what: str) -> None: ...
    def stage(self, name: str, position: str) -> None: ...
    def progress(self, what: str, done: float, of: float) -> None: ...
    def note(self, text: str) -> None: ...
    def done(self, name: str, manifest: Manifest, folder: Path) -> None: ...
    def skipped(self, name: str, manifest: Manifest, folder: Path) -> None: ...


_BUSY: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
"""What one pipeline of this process works on at a time."""


class Pipeline:
    """One configuration's stages and where their outputs lie."""

    def __init__(self, config: Config, watcher: Watcher) -> None:
        self.config = config
        self.watcher = watcher
        self._override = ""
        self.fingerprints: dict[str, str] = {}
        for stage in STAGES.values():
            before = [self.fingerprints[name] for name in stage.inputs(config)]
            self.fingerprints[stage.name] = fingerprint(
                stage.name, __version__, config.seed, stage.decides(config), before
            )

    def folder(self, stage: str) -> Path:
        return self.config.folder / f"{stage}-{self.fingerprints[stage][:12]}"

    def output(self, stage: str) -> Manifest | None:
        """The manifest of a stage that is done; None where it has to run.

        Done means complete, and known to the tracking store: after that was replaced, its run
        and its model have to be logged again.
        """
        from bayling.registry import runs

        manifest = Manifest.read(self.folder(stage))
        if manifest is None or manifest.fingerprint != self.fingerprints[stage]:
            return None
        return manifest if runs.exists(self.config.tracking, manifest.run_id) else None

    def run(self, parent: str | None = None) -> dict[str, Manifest]:
        """Run what has to be run; returns every stage's manifest.

        Raises:
            UserError: another model than the one that is trained is to be evaluated.
            GateRefused: the candidate was not promoted; nothing is served.
        """
        self._check_own_model()
        self.prepare()
        todo = self._todo()
        if not todo:
            return self._skip_all()
        if "serve" in todo:
            from bayling.serve.run import check_port

            check_port(self.config.serve.host, self.config.serve.port)
        outputs: dict[str, Manifest] = {}
        with ExitStack() as stack:
            take_down = stack.enter_context(self._connected())
            self._check_base_is_seen()
            self._bring_base(todo)
            tracked = stack.enter_context(
                self._run(f"{self.config.name} pipeline", "pipeline", "serve", parent)
            )
            for position, name in enumerate(STAGES, start=1):
                where = f"{position}/{len(STAGES)}"
                outputs[name] = self._stage(name, where, tracked.run_id, take_down)
                if name == "promote" and not outputs[name].results["accepted"]:
                    self._headline(tracked, outputs)
                    break
            else:
                self._headline(tracked, outputs)
        self._raise_refusal(outputs["promote"])
        return outputs

    def run_stage(self, name: str, parent: str | None = None, override: str = "") -> Manifest:
        """Run one stage on the outputs of those before it.

        Args:
            override: of promote: why a candidate that the gate refuses, or refused, is promoted.

        Raises:
            UserError: a stage before it has not been run with this configuration.
            GateRefused: the stage is promote, and the candidate did not pass.
        """
        if name in ("promote", "serve"):
            self._check_own_model()
        self.prepare()
        self.require(name)
        self._override = override
        if override and (done := self.output(name)) and not done.results["accepted"]:
            (self.folder(name) / MANIFEST).unlink()  # the refusal is not the last word any more
        if name == "serve":
            from bayling.serve.run import check_port

            check_port(self.config.serve.host, self.config.serve.port)
        if self.output(name) is not None:
            manifest = self._stage(name, "", parent)
        else:
            with self._connected() if STAGES[name].on_ray else nullcontext(True) as take_down:
                self._check_base_is_seen()
                self._bring_base([name])
                manifest = self._stage(name, "", parent, take_down)
        if name == "promote":
            self._raise_refusal(manifest)
        return manifest

    def export(self, step: int | None, target: Path) -> int:
        """Write the model of a checkpoint of this configuration's training to `target`.

        Returns its step, the newest where `step` is None.

        Raises:
            UserError: the data stage has not been run, or there is no such checkpoint.
        """
        from bayling.registry import runs
        from bayling.train.exporting import export_step

        data = self.output("data")
        if data is None:
            self.require("train")
        assert data is not None
        tracking, folder = self.config.tracking, self.folder("train")
        run_id = runs.find(tracking, self.config.experiment, self.fingerprints["train"])
        context = Context(
            folder=folder,
            inputs={"data": (self.folder("data"), data)},
            fingerprint=self.fingerprints["train"],
            seed=self.config.seed,
            scale=self.config.scale,
            tracked=TrackedRun(tracking, self.config.experiment, run_id or "unknown"),
            report=self.watcher.progress,
            note=self.watcher.note,
        )
        return export_step(self.config.train, self.config.model, context, step, target)

    def _check_own_model(self) -> None:
        if self.config.evaluate.model is not None:
            raise UserError(
                f"evaluate.model={self.config.evaluate.model} is another model than the one that "
                "is trained: `bayling evaluate` scores it, and nothing comes after that"
            )

    def _check_base_is_seen(self) -> None:
        """Before gigabytes are brought to where other nodes cannot look."""
        base = self.config.model.base
        if base is not None and not Path(base).exists():
            placement.check_shared("model.base", Path(base).parent, self.config.scale)

    def _bring_base(self, todo: list[str]) -> None:
        """Have the base weights where data and training will read them."""
        if self.config.model.base is not None and {"data", "train"} & set(todo):
            self.watcher.preparing("looking for the base weights")
            ensure(self.config.model, self.watcher.progress)

    def _connected(self) -> AbstractContextManager[bool]:
        self.watcher.preparing("starting Ray")
        return local.connected(self.config.scale)

    def require(self, name: str) -> None:
        """See that the stages that a stage reads from are done.

        Raises:
            UserError: one of them is not.
        """
        for before in STAGES:
            if before == name:
                return
            if self._needed(before, name) and self.output(before) is None:
                one, whole = f"bayling {before}", "bayling run"
                if os.environ.get("BAYLING_JOB"):  # in a pod: its outputs are in the job's storage
                    one, whole = f"bayling submit {before}", "bayling submit pipeline"
                raise UserError(
                    f"the {before} stage has not been run with this configuration: run `{one}` "
                    f"with the same overrides first, or `{whole}` for all"
                )

    def _needed(self, before: str, name: str) -> bool:
        inputs = STAGES[name].inputs(self.config)
        return before in inputs or any(self._needed(before, other) for other in inputs)

    def _todo(self) -> list[str]:
        """The stages that have to run; nothing comes after a refusal."""
        todo = []
        for name in STAGES:
            manifest = self.output(name)
            if manifest is None:
                todo.append(name)
            elif name == "promote" and not manifest.results["accepted"] and not todo:
                return []
        return todo

    def _skip_all(self) -> dict[str, Manifest]:
        outputs = {}
        for position, name in enumerate(STAGES, start=1):
            outputs[name] = self._stage(name, f"{position}/{len(STAGES)}", None)
            if name == "promote":
                self._raise_refusal(outputs[name])
        return outputs

    def prepare(self) -> None:
        """See that what is written to can be: the folder and the tracking store.

        Raises:
            UserError: which of them cannot, and the way out.
        """
        # Importing MLflow and starting Ray take seconds each: say so before either.
        self.watcher.preparing("looking for what is done already")
        from bayling.registry import runs

        try:
            self.config.folder.mkdir(parents=True, exist_ok=True)
            # Of its own: others of a sweep look at the same moment.
            probe = self.config.folder / f".writable-{uuid.uuid4().hex[:8]}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"the user {os.getuid()} cannot write to {self.config.folder} ({error.strerror}): "
                "set output_dir to a folder that this user owns"
            ) from None
        runs.check_reachable(self.config.tracking)

    def experiment(self) -> str:
        """The id of the experiment in MLflow, made where it does not exist."""
        from bayling.registry import runs

        artifacts = Path(self.config.output_dir).expanduser().resolve() / "mlartifacts"
        return runs.experiment_id(self.config.tracking, self.config.experiment, artifacts)

    def _run(
        self, name: str, stage: str, key: str, parent: str | None
    ) -> AbstractContextManager[TrackedRun]:
        """An MLflow run that ends with the block, whichever way the block ends."""
        from bayling.registry import runs

        return runs.ended_with_the_block(
            runs.open_run(
                self.config.tracking,
                self.experiment(),
                name=name,
                key=self.fingerprints[key],
                stage=stage,
                parent=parent,
                config=self.config,
                labels=self.labels(),
            )
        )

    def labels(self) -> dict[str, str]:
        """Tags that all runs of this pipeline have: whose work it is, and which job does it."""
        from bayling.registry import runs

        found = {runs.TEAM: self.config.team, runs.JOB: os.environ.get(JOB_VARIABLE)}
        return {tag: value for tag, value in found.items() if value}

    def _stage(
        self, name: str, position: str, parent: str | None, take_down: bool = True
    ) -> Manifest:
        # In a sweep several pipelines share a data stage, and there is one champion.
        what = "champion" if name in ("promote", "serve") else str(self.folder(name))
        with _BUSY[what], self._held(name):
            return self._stage_alone(name, position, parent, take_down)

    def _held(self, name: str) -> AbstractContextManager[object]:
        """Jobs on a cluster may share a stage (those of a sweep, or train and pipeline): one works
        on it, the others wait and find it done."""
        if JOB_VARIABLE not in os.environ:
            return nullcontext()

        def waiting(owner: str) -> None:
            self.watcher.progress(f"waiting for {owner}, which works on the {name} stage", 0, 0)

        lock = self.config.folder / f".{name}-{self.fingerprints[name][:12]}.lock"
        return held(lock, waiting)

    def _stage_alone(
        self, name: str, position: str, parent: str | None, take_down: bool
    ) -> Manifest:
        folder = self.folder(name)
        done = self.output(name)
        if done is not None:
            self.watcher.skipped(name, done, folder)
            return done
        self.watcher.stage(name, position)
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        inputs = {}
        for before in STAGES[name].inputs(self.config):
            manifest = self.output(before)
            assert manifest is not None  # ran before, or was required
            inputs[before] = (self.folder(before), manifest)
        with self._run(f"{self.config.name} {name}", name, name, parent) as tracked:
            context = Context(
                folder=folder,
                inputs=inputs,
                fingerprint=self.fingerprints[name],
                seed=self.config.seed,
                scale=self.config.scale,
                tracked=tracked,
                report=self.watcher.progress,
                note=self.watcher.note,
                take_down=take_down,
                registered_model=self.config.registered_model,
                override=self._override,
            )
            manifest = STAGES[name].run(self.config, context)
            manifest = replace(manifest, seconds=round(time.monotonic() - started, 2))
            manifest.write(folder)
            from bayling.registry import costs, runs

            runs.log_metrics(tracked, costs.of_stage(manifest, self.config.scale))
            runs.log_file(tracked, folder / MANIFEST)
        self.watcher.done(name, manifest, folder)
        return manifest

    def _headline(self, tracked: TrackedRun, outputs: dict[str, Manifest]) -> None:
        """The figures by which pipelines are compared, on the pipeline's own run."""
        from bayling.registry import runs

        results = outputs["evaluate"].results
        numbers = {key: value for key, value in results.items() if isinstance(value, float)}
        runs.log_metrics(tracked, numbers)
        promote = outputs["promote"].results
        runs.set_tags(
            tracked,
            {
                "gate.verdict": promote["verdict"],
                "gate.reasons": "; ".join(promote["reasons"]) or "every rule passed",
                "model_version": promote["version"],
            },
        )

    def _raise_refusal(self, promote: Manifest) -> None:
        results = promote.results
        if results["accepted"]:
            return
        reasons = "\n".join(f"  - {reason}" for reason in results["reasons"])
        raise GateRefused(
            f"version {results['version']} of {results['model']} was not promoted, compared "
            f"with the {results['baseline']} (`bayling promote --explain` shows more):\n{reasons}"
        )
