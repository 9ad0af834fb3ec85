{{/*
The values of a generated Secret, base64: those in the cluster, or else new ones. A template may be
asked twice in one rendering (by the Secret and by a checksum), so what was drawn is kept.
Arguments: root, name, keys (key: characters).
*/}}
{{- define "platform.generated" -}}
{{- $drawn := dig "generated" (dict) (.root.Values | toYaml | fromYaml) -}}
{{- if not (hasKey $drawn .name) -}}
{{- $there := dig "data" (dict) (lookup "v1" "Secret" .root.Release.Namespace .name | default dict) -}}
{{- $data := dict -}}
{{- range $key, $length := .keys -}}
{{- $_ := set $data $key (default (randAlphaNum (int $length) | b64enc) (get $there $key)) -}}
{{- end -}}
{{- $_ := set $drawn .name $data -}}
{{- $_ := set .root.Values "generated" $drawn -}}
{{- end -}}
{{- get $drawn .name | toYaml -}}
{{- end -}}

{{/* Changes when a Secret that was there before does, so that its pods start anew with the next upgrade. */}}
{{- define "platform.secretChecksum" -}}
{{- dig "data" (dict) (lookup "v1" "Secret" .root.Release.Namespace .name | default dict) | toYaml | sha256sum -}}
{{- end -}}

{{- define "platform.mlflow.secret" -}}
{{- default (include "platform.mlflow.name" .) .Values.mlflow.auth.existingSecret -}}
{{- end -}}

{{- define "platform.mlflow.generated" -}}
{{- include "platform.generated" (dict "root" . "name" (include "platform.mlflow.name" .) "keys" (dict "admin-password" 32 "flask-secret-key" 48)) -}}
{{- end -}}

{{- define "platform.jobs.generated" -}}
{{- include "platform.generated" (dict "root" . "name" (printf "%s-mlflow" (include "platform.jobs.name" .)) "keys" (dict "MLFLOW_TRACKING_PASSWORD" 32)) -}}
{{- end -}}

{{- define "platform.postgresql.secret" -}}
{{- default (include "platform.postgresql.name" .) .Values.postgresql.existingSecret -}}
{{- end -}}

{{- define "platform.postgresql.generated" -}}
{{- include "platform.generated" (dict "root" . "name" (include "platform.postgresql.name" .) "keys" (dict "password" 32)) -}}
{{- end -}}
