{{/* The name that all objects begin with, and the RayService's own: the release's. */}}
{{- define "serving.name" -}}
{{- default .Release.Name .Values.fullnameOverride -}}
{{- end -}}

{{- define "serving.controller.name" -}}
{{ include "serving.name" . }}-rollout
{{- end -}}

{{/* The service that KubeRay makes for what is served. */}}
{{- define "serving.service" -}}
{{ include "serving.name" . }}-serve-svc
{{- end -}}

{{- define "serving.port" -}}
8000
{{- end -}}

{{- define "serving.url" -}}
http://{{ include "serving.service" . }}.{{ .Release.Namespace }}.svc:{{ include "serving.port" . }}
{{- end -}}

{{/* A resource of Ray that marks the node on which the API is to be. */}}
{{- define "serving.apiResource" -}}
bayling-api
{{- end -}}

{{/* Where pods keep models, and where the API finds the records of keys. */}}
{{- define "serving.cachePath" -}}
/var/cache/bayling
{{- end -}}
{{- define "serving.keysPath" -}}
/etc/bayling/keys
{{- end -}}

{{/* What tells this release's objects from any other's; part of selectors, which never change. */}}
{{- define "serving.selector" -}}
app.kubernetes.io/part-of: bayling
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "serving.labels" -}}
{{ include "serving.selector" . }}
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

{{/*
Of a pod: what selectors know, and the team, which cost reports group by. No version of the chart: a
label that changes would be another Ray cluster with every upgrade.
*/}}
{{- define "serving.podLabels" -}}
{{ include "serving.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.team }}
bayling/team: {{ . | quote }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* repository, tag and digest as a reference. */}}
{{- define "serving.reference" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{- define "serving.image" -}}
{{- $tag := default (printf "%s-cpu" .Chart.AppVersion) .Values.image.tag -}}
{{- include "serving.reference" (dict "repository" .Values.image.repository "tag" $tag "digest" .Values.image.digest) -}}
{{- end -}}

{{/* The image of a group of workers: what is not given is the project image's. */}}
{{- define "serving.otherImage" -}}
{{- $common := .root.Values.image -}}
{{- $tag := default (default (printf "%s-cpu" .root.Chart.AppVersion) $common.tag) .image.tag -}}
{{- $digest := .image.digest -}}
{{- if not (or .image.digest .image.tag .image.repository) -}}
{{- $digest = $common.digest -}}
{{- end -}}
{{- include "serving.reference" (dict "repository" (default $common.repository .image.repository) "tag" $tag "digest" $digest) -}}
{{- end -}}

{{- define "serving.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a pod and of a container. */}}
{{- define "serving.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "serving.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A token of the API server as a volume, for the one container that mounts it. */}}
{{- define "serving.apiAccess" -}}
- name: api-access
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* Where MLflow is, and who asks. */}}
{{- define "serving.mlflowEnv" -}}
- name: MLFLOW_TRACKING_URI
  {{- if .Values.mlflow.trackingUri }}
  value: {{ .Values.mlflow.trackingUri | quote }}
  {{- else }}
  valueFrom: {configMapKeyRef: {name: {{ .Values.mlflow.platform }}-jobs, key: MLFLOW_TRACKING_URI}}
  {{- end }}
{{- if .Values.mlflow.auth }}
{{- $secret := default (printf "%s-jobs-mlflow" .Values.mlflow.platform) .Values.mlflow.existingSecret }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: MLFLOW_TRACKING_USERNAME}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: MLFLOW_TRACKING_PASSWORD}}
{{- end }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
{{- end -}}
