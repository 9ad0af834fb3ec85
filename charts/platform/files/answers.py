"""Run by `helm test`: MLflow answers, knows the account of jobs, and nobody without one."""

import base64
import os
import urllib.error
import urllib.request


def status(path: str, account: str = "") -> int:
    """What MLflow answers a GET with; account is `user:password`, or empty."""
    request = urllib.request.Request(os.environ["MLFLOW"] + path)
    if account:
        coded = base64.b64encode(account.encode()).decode()
        request.add_header("Authorization", f"Basic {coded}")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        return refused.code


experiments = "/api/2.0/mlflow/experiments/search?max_results=1"
assert status("/health") == 200, "MLflow is not healthy"
if "USERNAME" in os.environ:
    assert status(experiments) == 401, "MLflow answers without asking who it is"
    account = f"{os.environ['USERNAME']}:{os.environ['PASSWORD']}"
    assert status(experiments, account) == 200, "MLflow does not know the account of jobs"
else:
    assert status(experiments) == 200, "MLflow does not answer"
print(f"MLflow {os.environ['MLFLOW']} answers")
