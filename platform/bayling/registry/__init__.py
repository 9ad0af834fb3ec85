"""MLflow: runs, logged models, versions, aliases and the lineage between them."""
