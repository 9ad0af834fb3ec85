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
TWO_GPUS = {
    "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 2},
    "limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 2},
}
CPUS = {
    "name": "engines",
    "replicas": 1,
    "minReplicas": 1,
    "maxReplicas": 4,
    "resources": {
        "requests": {"cpu": "500m", "memory": "3Gi"},
        "limits": {"cpu": "1", "memory": "4Gi"},
    },
}
DIGEST = "sha256:" + "0123456789abcdef" * 4

# Names that Kubernetes takes and YAML takes for something else, unless they are quoted.
WORDS: dict[str, dict[str, Any]] = {
    "platform": {
        "team": "007",
        "image": {"pullSecrets": ["123"]},
        "mlflow": {
            "auth": {"existingSecret": "1e3", "jobs": {"existingSecret": "true"}},
            "database": {"type": "external", "external": {"existingSecret": "null", "uriKey": "y"}},
            "persistence": {"existingClaim": "12"},
            "priorityClassName": "on",
        },
        "ray": {
            "enabled": True,
            "autoscaling": False,
            "authSecret": "0",
            "workers": [{**GPUS, "name": "1", "priorityClassName": "off"}],
        },
        "kueue": {"enabled": True, "queue": "no"},
        "networkPolicy": {
            "clientNamespaces": ["2024"],
            "operatorNamespace": "2025",
            "monitoringNamespace": "2026",
            "databaseCidr": "::/0",
        },
        "monitoring": {"enabled": True},
    },
    "serving": {
        "team": "007",
        "image": {"pullSecrets": ["123"]},
        "mlflow": {"trackingUri": "http://mlflow.2024.svc:5000", "existingSecret": "1e3"},
        "keys": {"existingSecret": "0"},
        "cache": {"existingClaim": "12"},
        "faultTolerance": {
            "enabled": True,
            "redisAddress": "redis:6379",
            "existingSecret": "null",
            "passwordKey": "on",
            "usernameKey": "off",
        },
        "ray": {"authSecret": "true", "workers": [{**CPUS, "name": "y"}]},
        "controller": {"priorityClassName": "no"},
        "ingress": {"enabled": True, "className": "1", "host": "*.example.com", "tlsSecret": "2"},
        "networkPolicy": {"redisCidr": "::/0", "operatorNamespace": "2025"},
    },
}

VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "platform": {
        "default": {},
        "words": WORDS["platform"],
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
    },
    "serving": {
        "default": {},
        "words": WORDS["serving"],
        "scale-to-zero": {
            "config": {"min_replicas": 0, "downscale_to_zero_delay_s": 300},
            "ray": {"workers": [{**CPUS, "replicas": 0, "minReplicas": 0}]},
        },
        "gpus-vllm": {
            "team": "translators",
            "device": "cuda",
            "image": {"repository": "registry.example.com/bayling", "pullSecrets": ["registry"]},
            "config": {
                "engine": "vllm",
                "tensor_parallel": 2,
                "adapters": ["formal:/models/formal"],
                "rollout": {"steps": [0.1, 0.5], "min_samples": 100},
            },
            "ray": {
                "workers": [{**GPUS, "resources": TWO_GPUS}],
                "drainSeconds": 600,
                "protectHead": True,
                "authSecret": "token",
                "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
            },
            "cache": {"existingClaim": "cache"},
        },
        "ingress": {
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "host": "translate.example.com",
                "tlsSecret": "certificate",
            },
            "networkPolicy": {
                "apiFrom": [
                    {"podSelector": {"matchLabels": {"app": "web"}}},
                    {"namespaceSelector": {"matchLabels": {"ingress": "yes"}}},
                ]
            },
        },
        "gateway": {
            "gateway": {
                "enabled": True,
                "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
                "hostnames": ["translate.example.com"],
                "timeout": "10m",
            }
        },
        "redis": {
            "faultTolerance": {
                "enabled": True,
                "redisAddress": "redis.ml.svc:6380",
                "existingSecret": "redis",
                "usernameKey": "user",
            },
            "networkPolicy": {"redisCidr": "10.2.0.0/16", "operatorNamespace": "kuberay"},
            "ray": {"api": {"nodeSelector": {"pool": "cpu"}, "priorityClassName": "high"}},
        },
        "redis-open": {"faultTolerance": {"enabled": True, "redisAddress": "redis:6379"}},
        "secrets-of-ones-own": {
            "keys": {"generate": False, "existingSecret": "customers"},
            "mlflow": {"existingSecret": "account"},
        },
        "another-namespaces-mlflow": {
            "mlflow": {
                "trackingUri": "http://bayling-mlflow.ml.svc:5000",
                "existingSecret": "account",
            },
        },
        "open-mlflow": {"mlflow": {"auth": False, "trackingUri": "https://mlflow.example.com"}},
        "monitoring": {
            "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
            "networkPolicy": {"monitoringNamespace": "monitoring"},
            "ray": {"workers": [{**CPUS, "replicas": 3, "minReplicas": 3}]},
        },
        "fixed-size": {
            "ray": {
                "autoscaling": False,
                "upgrade": "None",
                "workers": [
                    {**CPUS, "replicas": 2, "minReplicas": 2},
                    {**CPUS, "name": "spot", "tolerations": [{"key": "spot"}]},
                ],
            },
        },
        "no-network-policies": {"networkPolicy": {"enabled": False}},
        "everything-else": {
            "fullnameOverride": "translator",
            "commonLabels": {"example.com/cost": "nlp"},
            "image": {"repository": "registry.example.com/bayling", "digest": DIGEST},
            "model": "bayling-13b",
            "config": {
                "alias": "staging",
                "identity": {"institute": 'A "B" & C\'s, 百聆'},
                "tracing": {"endpoint": "http://collector:4318/v1/traces", "share": 0.1},
                "cors_origins": ["https://example.org"],
                "kv_cache_gib": None,
            },
            "controller": {
                "nodeSelector": {"pool": "cpu"},
                "tolerations": [{"key": "pool", "value": "cpu"}],
                "priorityClassName": "high",
            },
            "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
            "podDisruptionBudget": {"enabled": False},
            "networkPolicy": {
                "apiServerCidr": "10.0.0.1/32",
                "rayEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}],
            },
            "monitoring": {"enabled": True, "rules": {"enabled": False}},
        },
    },
}
