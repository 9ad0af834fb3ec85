{{/* Names are looked up in the cluster's DNS, or in a node's own cache of it. */}}
{{- define "platform.network.dns" -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace | quote }}}}
    - ipBlock: {cidr: 169.254.20.10/32}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    # OpenShift's, behind its service.
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
{{- end -}}

{{/* The pods of one part of this release. Arguments: root, component. */}}
{{- define "platform.network.component" -}}
podSelector:
  matchLabels:
    {{- include "platform.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Where MLflow and its migrations find their database, if that is not a file. */}}
{{- define "platform.network.database" -}}
{{- if eq .Values.mlflow.database.type "postgresql" -}}
- to:
    - {{ include "platform.network.component" (dict "root" . "component" "postgresql") | nindent 6 | trim }}
  ports:
    - {port: 5432, protocol: TCP}
{{- else if eq .Values.mlflow.database.type "external" -}}
- {{ with .Values.networkPolicy.databaseCidr }}to: [{ipBlock: {cidr: {{ . | quote }}}}]
  {{ end }}ports:
    - {port: {{ .Values.networkPolicy.databasePort }}, protocol: TCP}
{{- end -}}
{{- end -}}

{{/* From Ray's pods, those of jobs included, to MLflow. */}}
{{- define "platform.network.toMlflow" -}}
{{- if .Values.jobs.trackingUri -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .Values.jobs.trackingUri).host | trimPrefix ":" -}}
# MLflow is elsewhere; a policy cannot name it by its address.
- ports:
    - {port: {{ default (ternary 443 80 (hasPrefix "https:" .Values.jobs.trackingUri)) $port }}, protocol: TCP}
{{- else -}}
- to:
    - {{ include "platform.network.component" (dict "root" . "component" "mlflow") | nindent 6 | trim }}
  ports:
    - {port: 5000, protocol: TCP}
{{- end -}}
{{- end -}}
