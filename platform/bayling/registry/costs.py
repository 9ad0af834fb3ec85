"""What runs cost: GPU hours and money, as metrics of each run, and their sums by team."""

from __future__ import annotations

from dataclasses import dataclass

from bayling.registry import runs
from bayling.scale import Device, ScaleConfig
from bayling.stage import Manifest

GPU_HOURS, PRICE = "cost/gpu_hours", "cost/price"
_AT_ONCE = 1000


@dataclass
class Spent:
    """The sum over some runs."""

    runs: int = 0
    gpu_hours: float = 0.0
    price: float | None = None
    """In the currency of `scale.price_per_gpu_hour`; None where no run knew a price."""


def of_stage(manifest: Manifest, scale: ScaleConfig) -> dict[str, float]:
    """The metrics of a stage that is done; none for one without GPUs.

    Training counts the hours of its workers, those before a restart included; evaluation those
    for which its engines had their GPUs.
    """
    if scale.device is not Device.cuda:
        return {}
    if manifest.stage == "train":
        hours = manifest.results["worker_hours"] * scale.gpus_per_worker
    elif manifest.stage == "evaluate":
        hours = manifest.seconds / 3600 * scale.engines * scale.gpus_per_worker
    else:
        return {}
    found = {GPU_HOURS: float(hours)}
    if scale.price_per_gpu_hour is not None:
        found[PRICE] = hours * scale.price_per_gpu_hour
    return found


def by_team(tracking_uri: str) -> dict[str, Spent]:
    """Team → what its runs have cost, over all experiments; "" for runs of no team."""
    mlflow = runs.client(tracking_uri)
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    found: dict[str, Spent] = {}
    token = None
    while experiments:
        page = mlflow.search_runs(
            experiments, f"metrics.`{GPU_HOURS}` >= 0", max_results=_AT_ONCE, page_token=token
        )
        for run in page:
            spent = found.setdefault(run.data.tags.get(runs.TEAM, ""), Spent())
            spent.runs += 1
            spent.gpu_hours += run.data.metrics[GPU_HOURS]
            if PRICE in run.data.metrics:
                spent.price = (spent.price or 0.0) + run.data.metrics[PRICE]
        token = page.token
        if not token:
            break
    return found
