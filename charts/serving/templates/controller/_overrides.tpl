{{/* What is set in `config`, as overrides of Hydra. Its strings are JSON's. */}}
{{- define "serving.overrides" -}}
{{- range $key, $value := .Values.config }}
{{- if kindIs "map" $value }}
{{- range $inner, $one := $value }}
- {{ printf "serve.%s.%s=%s" $key $inner (toRawJson $one) | toRawJson }}
{{- end }}
{{- else }}
- {{ printf "serve.%s=%s" $key (toRawJson $value) | toRawJson }}
{{- end }}
{{- end }}
{{- end -}}
