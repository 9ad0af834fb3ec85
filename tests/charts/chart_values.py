"""The sets of values that every chart is tested with. A chart that is not here is not tested."""

from __future__ import annotations

from typing import Any

S3 = {
    "type": "s3",
    "s3": {"bucket": "models", "endpoint": "https://minio.storage:9000", "existingSecret": "minio"},
}
GPUS = {
    "name": "gpu",
    "replicas": 2,
    "minReplicas": 0,
    "maxReplicas": 8,
    "image": {"tag": "0.1.0-gpu"},
    "shm": "32Gi",
    "resources": {
        "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 1},
        "limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 1},
    },
    "nodeSelector": {"nvidia.com/gpu.product": "H100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "low",
}
DIGEST = "sha256:" + "0123456789abcdef" * 4

VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "platform": {
        "default": {},
        "open": {"mlflow": {"auth": {"enabled": False}}},
        "secrets-of-ones-own": {
            "mlflow": {
                "auth": {"existingSecret": "admin", "jobs": {"existingSecret": "jobs"}},
                "database": {"type": "postgresql"},
            },
            "postgresql": {"existingSecret": "database"},
        },
        "postgresql": {"mlflow": {"database": {"type": "postgresql"}}},
        "postgresql-s3-replicas": {
            "mlflow": {"replicas": 3, "database": {"type": "postgresql"}, "artifacts": S3},
            "networkPolicy": {"s3Port": 9000, "s3Cidr": "10.0.0.0/8"},
        },
        "sqlite-s3": {"mlflow": {"artifacts": S3}},
        "external-role": {
            "mlflow": {
                "database": {"type": "external", "external": {"existingSecret": "rds"}},
                "artifacts": {"type": "s3", "s3": {"bucket": "models", "region": "eu-central-1"}},
                "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam"}},
            },
            "networkPolicy": {"databaseCidr": "10.1.0.0/16", "databasePort": 6432},
        },
        "external-shared-volume": {
            "mlflow": {
                "replicas": 2,
                "database": {
                    "type": "external",
                    "external": {"existingSecret": "pg-app", "uriKey": "url"},
                    "migrate": False,
                },
                "persistence": {"accessModes": ["ReadWriteMany"], "existingClaim": "shared"},
            }
        },
        "digests": {
            "image": {"repository": "registry.example.com/bayling", "digest": DIGEST},
            "mlflow": {"database": {"type": "postgresql"}},
            "postgresql": {"image": {"digest": DIGEST}},
        },
        "external-open": {
            "mlflow": {
                "auth": {"enabled": False},
                "database": {"type": "external", "external": {"existingSecret": "rds"}},
            },
        },
        "ray": {"image": {"digest": DIGEST}, "ray": {"enabled": True}},
        "ray-gpus": {
            "team": "translators",
            "image": {"repository": "registry.example.com/bayling", "pullSecrets": ["registry"]},
            "ray": {
                "enabled": True,
                "authSecret": "token",
                "drainSeconds": 300,
                "protectHead": True,
                "workers": [GPUS],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/mnt/shared"}],
            },
            "networkPolicy": {
                "operatorNamespace": "kuberay",
                "apiServerCidr": "10.0.0.1/32",
                "rayEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
            },
        },
        "ray-kueue": {
            "team": "translators",
            "ray": {"enabled": True, "autoscaling": False, "workers": []},
            "kueue": {"enabled": True, "queue": "nightly"},
        },
        "monitoring": {
            "monitoring": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "dashboards": {"enabled": True, "annotations": {"grafana_folder": "BayLing"}},
            },
            "networkPolicy": {"monitoringNamespace": "monitoring"},
            "ray": {"enabled": True},
        },
        "limits": {
            "quota": {"enabled": True},
            "limitRange": {"enabled": True, "max": {"memory": "1Ti"}},
            "jobs": {
                "submit": {
                    "subjects": [
                        {"kind": "Group", "name": "researchers"},
                        {"kind": "ServiceAccount", "name": "ci", "namespace": "ci"},
                    ]
                }
            },
        },
        "jobs-on-many-nodes": {
            "jobs": {
                "gpuImage": {"repository": "registry.example.com/bayling-gpu", "digest": DIGEST},
                "storage": {"size": "2Ti", "storageClass": "efs", "accessMode": "ReadWriteMany"},
            },
            "networkPolicy": {"operatorNamespace": "kuberay"},
        },
        "jobs-with-their-own-storage": {"jobs": {"storage": {"existingClaim": "nfs"}}},
        "jobs-without-storage": {"jobs": {"storage": {"enabled": False}}},
        "team-namespace": {
            "mlflow": {"enabled": False, "auth": {"jobs": {"existingSecret": "jobs"}}},
            "jobs": {"trackingUri": "http://bayling-mlflow.ml.svc:5000"},
            "team": "translators",
            "kueue": {"enabled": True},
            "ray": {"enabled": True, "autoscaling": False},
        },
        "no-network-policies": {
            "networkPolicy": {"enabled": False},
            "mlflow": {"database": {"type": "postgresql"}},
            "jobs": {"submit": {"enabled": False}},
        },
        "everything-else": {
            "fullnameOverride": "registry",
            "commonLabels": {"example.com/cost": "nlp"},
            "mlflow": {
                "image": {"repository": "registry.example.com/mlflow", "tag": "3.17.2"},
                "allowedHosts": ["mlflow.example.com"],
                "corsAllowedOrigins": ["https://notebooks.example.com"],
                "service": {"type": "NodePort", "port": 80, "annotations": {"a": "b"}},
                "podAnnotations": {"a": "b"},
                "nodeSelector": {"pool": "cpu"},
                "tolerations": [{"key": "pool", "value": "cpu"}],
                "affinity": {"nodeAffinity": {}},
                "priorityClassName": "high",
                "persistence": {"storageClass": "fast", "keep": False},
            },
            "networkPolicy": {
                "clientNamespaces": ["team-a", "team-b"],
                "mlflowFrom": [{"namespaceSelector": {"matchLabels": {"ingress": "yes"}}}],
            },
        },
    }
}
