{{/* The name that all objects begin with: the release's. */}}
{{- define "platform.name" -}}
{{- default .Release.Name .Values.fullnameOverride -}}
{{- end -}}

{{- define "platform.mlflow.name" -}}
{{ include "platform.name" . }}-mlflow
{{- end -}}

{{- define "platform.postgresql.name" -}}
{{ include "platform.name" . }}-postgresql
{{- end -}}

{{- define "platform.ray.name" -}}
{{ include "platform.name" . }}-ray
{{- end -}}

{{- define "platform.jobs.name" -}}
{{ include "platform.name" . }}-jobs
{{- end -}}

{{/* What tells this release's objects from any other's; part of selectors, which never change. */}}
{{- define "platform.selector" -}}
app.kubernetes.io/part-of: bayling
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "platform.labels" -}}
{{ include "platform.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- with .Values.team }}
bayling/team: {{ . | quote }}
{{- end }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of a pod: what selectors know, and the team, which cost reports group by. */}}
{{- define "platform.podLabels" -}}
{{ include "platform.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.team }}
bayling/team: {{ . | quote }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* repository, tag and digest as a reference. */}}
{{- define "platform.reference" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{- define "platform.image" -}}
{{- $tag := default (printf "%s-cpu" .Chart.AppVersion) .Values.image.tag -}}
{{- include "platform.reference" (dict "repository" .Values.image.repository "tag" $tag "digest" .Values.image.digest) -}}
{{- end -}}

{{/* Jobs on GPUs have an image of their own: the same packages, with CUDA. */}}
{{- define "platform.jobs.gpuImage" -}}
{{- $image := .Values.jobs.gpuImage -}}
{{- $tag := default (printf "%s-gpu" .Chart.AppVersion) $image.tag -}}
{{- include "platform.reference" (dict "repository" (default .Values.image.repository $image.repository) "tag" $tag "digest" $image.digest) -}}
{{- end -}}

{{/* MLflow's image, or that of a group of Ray workers: what is not given is the project image's. */}}
{{- define "platform.otherImage" -}}
{{- $common := .root.Values.image -}}
{{- $tag := default (default (printf "%s-cpu" .root.Chart.AppVersion) $common.tag) .image.tag -}}
{{- $digest := .image.digest -}}
{{- if not (or .image.digest .image.tag .image.repository) -}}
{{- $digest = $common.digest -}}
{{- end -}}
{{- include "platform.reference" (dict "repository" (default $common.repository .image.repository) "tag" $tag "digest" $digest) -}}
{{- end -}}

{{- define "platform.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a pod and of a container. */}}
{{- define "platform.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "platform.trackingUri" -}}
{{- if .Values.jobs.trackingUri -}}
{{ .Values.jobs.trackingUri }}
{{- else if .Values.mlflow.enabled -}}
http://{{ include "platform.mlflow.name" . }}.{{ .Release.Namespace }}.svc:{{ .Values.mlflow.service.port }}
{{- end -}}
{{- end -}}

{{/* Name of the Secret with the account of jobs; empty where MLflow asks for none. */}}
{{- define "platform.jobs.credentials" -}}
{{- if .Values.mlflow.auth.jobs.existingSecret -}}
{{ .Values.mlflow.auth.jobs.existingSecret }}
{{- else if and .Values.mlflow.enabled .Values.mlflow.auth.enabled -}}
{{ include "platform.jobs.name" . }}-mlflow
{{- end -}}
{{- end -}}

{{/* A client's environment: where MLflow is, and who asks. */}}
{{- define "platform.clientEnv" -}}
{{- with include "platform.trackingUri" . -}}
- name: MLFLOW_TRACKING_URI
  value: {{ . | quote }}
{{- end }}
{{- with include "platform.jobs.credentials" . }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: MLFLOW_TRACKING_USERNAME}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: MLFLOW_TRACKING_PASSWORD}}
{{- end }}
{{- end -}}

{{- define "platform.queue" -}}
{{- default .Values.team .Values.kueue.queue -}}
{{- end -}}

{{/* Needs a disk of its own: an sqlite database, or artifacts that are kept in files. */}}
{{- define "platform.mlflow.hasVolume" -}}
{{- if or (eq .Values.mlflow.database.type "sqlite") (eq .Values.mlflow.artifacts.type "volume") -}}true{{- end -}}
{{- end -}}

{{/* One pod after the other, where two must not have the volume or the sqlite file at a time. */}}
{{- define "platform.mlflow.oneAtATime" -}}
{{- if eq .Values.mlflow.database.type "sqlite" -}}true
{{- else if and (eq .Values.mlflow.artifacts.type "volume") (not (has "ReadWriteMany" .Values.mlflow.persistence.accessModes)) -}}true
{{- end -}}
{{- end -}}
