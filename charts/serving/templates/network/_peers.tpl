{{/* Names are looked up in the cluster's DNS, or in a node's own cache of it. */}}
{{- define "serving.network.dns" -}}
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
{{- define "serving.network.component" -}}
podSelector:
  matchLabels:
    {{- include "serving.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* MLflow: that of a release of the chart platform, or one that no policy can name by its address. */}}
{{- define "serving.network.mlflow" -}}
{{- if .Values.mlflow.trackingUri -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .Values.mlflow.trackingUri).host | trimPrefix ":" -}}
- ports:
    - {port: {{ default (ternary 443 80 (hasPrefix "https:" .Values.mlflow.trackingUri)) $port }}, protocol: TCP}
    # Of the chart platform, behind its service.
    - {port: 5000, protocol: TCP}
{{- else -}}
- to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/part-of: bayling
          app.kubernetes.io/instance: {{ .Values.mlflow.platform | quote }}
          app.kubernetes.io/component: mlflow
  ports:
    - {port: 5000, protocol: TCP}
{{- end -}}
{{- end -}}

{{- define "serving.network.apiServer" -}}
- {{ with .Values.networkPolicy.apiServerCidr }}to: [{ipBlock: {cidr: {{ . | quote }}}}]
  {{ end }}ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
