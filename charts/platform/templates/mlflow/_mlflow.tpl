{{- define "platform.mlflow.image" -}}
{{- include "platform.otherImage" (dict "root" . "image" .Values.mlflow.image) -}}
{{- end -}}

{{/*
The names that MLflow answers to, as against rebinding of DNS. Those of the service with and without
port, those of a forwarded port, and with monitoring the pod's own address, by which Prometheus comes.
*/}}
{{- define "platform.mlflow.hosts" -}}
{{- $service := include "platform.mlflow.name" . -}}
{{- $hosts := list "localhost" "localhost:*" "127.0.0.1" "127.0.0.1:*" -}}
{{- range list "" (printf ".%s" .Release.Namespace) (printf ".%s.svc" .Release.Namespace) (printf ".%s.svc.%s" .Release.Namespace .Values.clusterDomain) -}}
{{- $hosts = concat $hosts (list (printf "%s%s" $service .) (printf "%s%s:%d" $service . (int $.Values.mlflow.service.port))) -}}
{{- end -}}
{{- if .Values.monitoring.enabled -}}
{{- $hosts = append $hosts "$(POD_IP):5000" -}}
{{- end -}}
{{- concat $hosts .Values.mlflow.allowedHosts | join "," -}}
{{- end -}}

{{/* Address of the database. libpq takes the password of the chart's own from the environment. */}}
{{- define "platform.mlflow.databaseEnv" -}}
{{- if eq .Values.mlflow.database.type "external" -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.database.external.existingSecret | quote }}, key: {{ .Values.mlflow.database.external.uriKey | quote }}}}
{{- else if eq .Values.mlflow.database.type "postgresql" -}}
- name: MLFLOW_BACKEND_STORE_URI
  value: postgresql+psycopg2://mlflow@{{ include "platform.postgresql.name" . }}:5432/mlflow
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "platform.postgresql.secret" . | quote }}, key: password}}
{{- else -}}
- name: MLFLOW_BACKEND_STORE_URI
  value: sqlite:////mlflow/database/mlflow.db
- name: AUTH_DATABASE_URI
  value: sqlite:////mlflow/database/accounts.db
{{- end }}
{{- end -}}

{{- define "platform.mlflow.authEnv" -}}
- name: MLFLOW_AUTH_CONFIG_PATH
  value: /run/mlflow/auth.ini
- name: MLFLOW_AUTH_ADMIN_USERNAME
  valueFrom: {secretKeyRef: {name: {{ include "platform.mlflow.secret" . | quote }}, key: admin-username}}
- name: MLFLOW_AUTH_ADMIN_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "platform.mlflow.secret" . | quote }}, key: admin-password}}
- name: MLFLOW_FLASK_SERVER_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "platform.mlflow.secret" . | quote }}, key: flask-secret-key}}
{{- end -}}

{{- define "platform.mlflow.commonEnv" -}}
- {name: HOME, value: /tmp}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: DO_NOT_TRACK, value: "true"}
{{- end -}}

{{- define "platform.mlflow.artifactsDestination" -}}
{{- if eq .Values.mlflow.artifacts.type "s3" -}}
s3://{{ .Values.mlflow.artifacts.s3.bucket }}{{ with .Values.mlflow.artifacts.s3.prefix }}/{{ . }}{{ end }}
{{- else -}}
/mlflow/artifacts
{{- end -}}
{{- end -}}
