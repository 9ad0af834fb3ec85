"""MLflow: runs, logged models, versions, aliases and the lineage between them."""

import os

# A server that keeps its files in a bucket sends clients there for them, to addresses that it
# signs. Who reaches the server need not reach the bucket: jobs in a cluster whose network is
# closed by default do not, nor does a laptop a bucket inside the cluster. Where all do, "true"
# spares the server the way of large weights.
for _name in ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"):
    os.environ.setdefault(_name, "false")
