{{/* Values that contradict each other, or this cluster: one sentence, and the way out. */}}
{{- define "serving.check" -}}
{{- $name := include "serving.name" . -}}
{{- $v := .Values -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "The name %q has %d characters, and 40 is the most: KubeRay and Kubernetes refuse names over 47 and 63 once their own endings are added. Use a shorter release name, or set fullnameOverride." $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) -}}
{{- fail (printf "The name %q cannot be a service's: it must begin with a letter and have letters, digits and hyphens only. Use another release name, or set fullnameOverride." $name) -}}
{{- end -}}
{{- if not (.Capabilities.APIVersions.Has "ray.io/v1") -}}
{{- fail "KubeRay is missing: its CRDs (ray.io/v1) are not in this cluster. Install its operator first: helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --namespace kuberay --create-namespace (helm template: --api-versions ray.io/v1)" -}}
{{- end -}}
{{- if not (or $v.mlflow.trackingUri $v.mlflow.platform) -}}
{{- fail "There is no MLflow to take the model from: set mlflow.platform to the release of the chart platform, or mlflow.trackingUri and mlflow.existingSecret." -}}
{{- end -}}
{{- if and $v.mlflow.auth (not (or $v.mlflow.platform $v.mlflow.existingSecret)) -}}
{{- fail "mlflow.auth=true needs an account: set mlflow.existingSecret, or mlflow.platform for that of the chart platform." -}}
{{- end -}}
{{- if and (not $v.mlflow.auth) $v.mlflow.existingSecret -}}
{{- fail "mlflow.auth=false, yet mlflow.existingSecret names an account: set mlflow.auth=true, or leave the Secret out." -}}
{{- end -}}
{{- $groups := list -}}
{{- range $v.ray.workers -}}
{{- if not (and (le (int .minReplicas) (int .replicas)) (le (int .replicas) (int .maxReplicas))) -}}
{{- fail (printf "ray.workers: group %q must have minReplicas <= replicas <= maxReplicas, not %d, %d, %d." .name (int .minReplicas) (int .replicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and $v.faultTolerance.enabled (eq .name "api") -}}
{{- fail "ray.workers: with faultTolerance.enabled there is a group called api already. Use another name." -}}
{{- end -}}
{{- if and (eq $v.device "cuda") (not (regexMatch "gpu" (.resources.limits | keys | join " "))) -}}
{{- fail (printf "device=cuda needs GPUs, and group %q of ray.workers has none: add nvidia.com/gpu to its resources.limits." .name) -}}
{{- end -}}
{{- if and (eq $v.device "cpu") (regexMatch "gpu" (.resources.limits | keys | join " ")) -}}
{{- fail (printf "group %q of ray.workers has GPUs that nothing would use: set device=cuda." .name) -}}
{{- end -}}
{{- $cpu := .resources.limits.cpu | toString -}}
{{- $wanted := default 1 $v.config.engine_cpus | int -}}
{{- if eq $v.device "cpu" -}}
{{- $wanted = mul $wanted (default 1 $v.config.tensor_parallel | int) | int -}}
{{- end -}}
{{- if and (regexMatch "^[0-9]+$" $cpu) (lt (int $cpu) $wanted) -}}
{{- fail (printf "No engine fits a pod of group %q of ray.workers: it has %s CPUs, and an engine takes %d. Raise resources.limits.cpu, or lower config.engine_cpus." .name $cpu $wanted) -}}
{{- end -}}
{{- $groups = append $groups .name -}}
{{- end -}}
{{- if ne (len $groups) (len (uniq $groups)) -}}
{{- fail "ray.workers: two groups have the same name." -}}
{{- end -}}
{{- if and $v.faultTolerance.enabled (not $v.faultTolerance.redisAddress) -}}
{{- fail "faultTolerance.enabled=true needs faultTolerance.redisAddress, such as redis.ml.svc:6379." -}}
{{- end -}}
{{- if and (not $v.faultTolerance.enabled) (or $v.faultTolerance.redisAddress $v.faultTolerance.existingSecret) -}}
{{- fail "A Redis is named, yet faultTolerance.enabled is false: set it to true, or leave the Redis out." -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.enabled=true needs ingress.host." -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "gateway.enabled=true needs gateway.parentRefs: the gateway that the route belongs to." -}}
{{- end -}}
{{- if and $v.gateway.enabled (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1")) -}}
{{- fail "gateway.enabled=true needs the Gateway API, whose CRDs (gateway.networking.k8s.io/v1) are not in this cluster. Install them, or use ingress.enabled=true. (helm template: --api-versions gateway.networking.k8s.io/v1)" -}}
{{- end -}}
{{- if and (hasKey $v.config "max_replicas") (hasKey $v.config "min_replicas") (lt (int $v.config.max_replicas) (int $v.config.min_replicas)) -}}
{{- fail (printf "config.max_replicas=%d is below config.min_replicas=%d." (int $v.config.max_replicas) (int $v.config.min_replicas)) -}}
{{- end -}}
{{- if le (int $v.ray.drainSeconds) (default 120 $v.config.request_timeout_s | int) -}}
{{- fail (printf "ray.drainSeconds=%d would cut answers off that may take config.request_timeout_s=%d: raise it." (int $v.ray.drainSeconds) (default 120 $v.config.request_timeout_s | int)) -}}
{{- end -}}
{{- end -}}
