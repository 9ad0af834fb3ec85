"""Which failures of workers end a run, and what is said of the one that did.

Imports next to nothing: Ray Train's controller waits for it before it starts the workers.
"""

from __future__ import annotations

from typing import Any

from bayling.errors import StageFailed, UserError


class TooLarge(Exception):
    """The micro batch took more memory than there is; the next attempt takes half of it."""


class OutOfMemory(Exception):
    """More memory was asked for than there is, in the middle of training."""


def watch(most: int) -> Any:
    """Ray Train tries again after any exception; after some that changes nothing, and one that
    halves the micro batch is no failure."""
    import ray.train

    class WatchFailures(ray.train.UserCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.failures = 0

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            errors = list(worker_exceptions.values())
            for error in errors:
                if (ours := _among_causes(error, UserError, StageFailed)) is not None:
                    raise ours
            if any(_among_causes(error, TooLarge) is not None for error in errors):
                return
            if any(getattr(error, "preempted", False) for error in errors):
                return  # Ray counts them against `train.max_preemptions`
            self.failures += 1
            if self.failures > most:
                raise StageFailed(
                    f"workers were lost {self.failures} times, train.max_failures={most}: "
                    f"{_last_line(errors[0])}"
                )

    return WatchFailures()


def explained(error: BaseException) -> Exception:
    """A worker's own reason instead of the controller's report about it."""
    from ray.train import ControllerError, WorkerGroupError

    causes = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else []
    for one in (error, *causes):
        if (ours := _among_causes(one, UserError, StageFailed)) is not None:
            return ours
    if isinstance(error, ControllerError) and not causes:
        return StageFailed(f"training failed in Ray's controller: {error}")
    return StageFailed(f"training failed in a worker: {_last_line(causes[0] if causes else error)}")


def _among_causes(error: BaseException | None, *kinds: type[Exception]) -> Exception | None:
    """The error of one of these kinds that Ray wrapped; None where it is something else."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, kinds):
            return error
        error = (
            getattr(error, "_base_exc", None)
            or getattr(error, "controller_failure", None)
            or getattr(error, "cause", None)
            or error.__cause__
        )
    return None


def _last_line(error: BaseException) -> str:
    inner = getattr(error, "_base_exc", None) or getattr(error, "cause", None) or error
    lines = [line for line in str(inner).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(inner).__name__
