{{/* Values that contradict each other, or this cluster: one sentence, and the way out. */}}
{{- define "platform.check" -}}
{{- $name := include "platform.name" . -}}
{{- $v := .Values -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "The name %q has %d characters, and 40 is the most: KubeRay and Kubernetes refuse names over 47 and 63 once their own endings are added. Use a shorter release name, or set fullnameOverride." $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) -}}
{{- fail (printf "The name %q cannot be a service's: it must begin with a letter and have letters, digits and hyphens only. Use another release name, or set fullnameOverride." $name) -}}
{{- end -}}
{{- if and $v.ray.enabled (not (.Capabilities.APIVersions.Has "ray.io/v1")) -}}
{{- fail "ray.enabled=true needs KubeRay, whose CRDs (ray.io/v1) are not in this cluster. Install the KubeRay operator 1.7 first, or set ray.enabled=false. (helm template: --api-versions ray.io/v1)" -}}
{{- end -}}
{{- if and (not $v.mlflow.enabled) (not $v.jobs.trackingUri) -}}
{{- fail "mlflow.enabled=false leaves jobs without MLflow: set jobs.trackingUri to the address of the one they are to use." -}}
{{- end -}}
{{- if and $v.kueue.enabled (not (include "platform.queue" .)) -}}
{{- fail "kueue.enabled=true needs a queue: set team, or kueue.queue." -}}
{{- end -}}
{{- if and $v.kueue.enabled $v.ray.enabled $v.ray.autoscaling -}}
{{- fail "kueue.enabled=true and ray.autoscaling=true contradict each other: Kueue admits a Ray cluster of a fixed size. Set ray.autoscaling=false." -}}
{{- end -}}
{{- range $v.ray.workers -}}
{{- if not (and (le (int .minReplicas) (int .replicas)) (le (int .replicas) (int .maxReplicas))) -}}
{{- fail (printf "ray.workers: group %q must have minReplicas <= replicas <= maxReplicas, not %d, %d, %d." .name (int .minReplicas) (int .replicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $groups := list -}}
{{- range $v.ray.workers }}{{ $groups = append $groups .name }}{{ end -}}
{{- if ne (len $groups) (len (uniq $groups)) -}}
{{- fail "ray.workers: two groups have the same name." -}}
{{- end -}}
{{- if $v.mlflow.enabled -}}
{{- $database := $v.mlflow.database -}}
{{- $artifacts := $v.mlflow.artifacts -}}
{{- if and (eq $database.type "external") (not $database.external.existingSecret) -}}
{{- fail "mlflow.database.type=external needs mlflow.database.external.existingSecret: the name of a Secret with the database's address." -}}
{{- end -}}
{{- if and (ne $database.type "external") $database.external.existingSecret -}}
{{- fail (printf "Two databases: mlflow.database.type is %s, and mlflow.database.external.existingSecret names another. Set type=external, or leave the Secret out." $database.type) -}}
{{- end -}}
{{- if and (ne $database.type "postgresql") $v.postgresql.existingSecret -}}
{{- fail (printf "Two databases: mlflow.database.type is %s, and postgresql.existingSecret is for PostgreSQL of this chart. Set type=postgresql, or leave the Secret out." $database.type) -}}
{{- end -}}
{{- if and (eq $artifacts.type "s3") (not $artifacts.s3.bucket) -}}
{{- fail "mlflow.artifacts.type=s3 needs mlflow.artifacts.s3.bucket." -}}
{{- end -}}
{{- if and (ne $artifacts.type "s3") (or $artifacts.s3.bucket $artifacts.s3.endpoint $artifacts.s3.existingSecret) -}}
{{- fail "mlflow.artifacts.s3 is set, yet mlflow.artifacts.type is volume: set type=s3, or leave the S3 keys out." -}}
{{- end -}}
{{- if and (gt (int $v.mlflow.replicas) 1) (eq $database.type "sqlite") -}}
{{- fail "mlflow.replicas above 1 needs a database that pods can share: set mlflow.database.type to postgresql or external." -}}
{{- end -}}
{{- if and (gt (int $v.mlflow.replicas) 1) (include "platform.mlflow.oneAtATime" .) -}}
{{- fail "mlflow.replicas above 1 needs artifacts that pods can share: mlflow.artifacts.type=s3, or ReadWriteMany in mlflow.persistence.accessModes." -}}
{{- end -}}
{{- if and (not $v.mlflow.auth.enabled) (or $v.mlflow.auth.existingSecret $v.mlflow.auth.jobs.existingSecret) -}}
{{- fail "mlflow.auth.enabled=false, yet a Secret for accounts is named: switch authentication on, or leave the Secret out." -}}
{{- end -}}
{{- end -}}
{{- end -}}
