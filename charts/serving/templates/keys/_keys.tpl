{{/*
A key for the API and when it was drawn, base64: those in the cluster, or else new ones. A template
is asked twice in one rendering (by the Secret with the key and by that with its record), so what was
drawn is kept. Arguments: root, name (of the Secret).
*/}}
{{- define "serving.keys.drawn" -}}
{{- $drawn := dig "drawn" (dict) (.root.Values | toYaml | fromYaml) -}}
{{- if not (hasKey $drawn .name) -}}
{{- $there := dig "data" (dict) (lookup "v1" "Secret" .root.Release.Namespace .name | default dict) -}}
{{- $key := printf "bl-%s-%s" (randAlphaNum 32 | sha256sum | trunc 12) (randAlphaNum 43) -}}
{{- $created := dateInZone "2006-01-02T15:04:05+00:00" now "UTC" -}}
{{- $_ := set $drawn .name (dict "key" (default ($key | b64enc) (get $there "key")) "created" (default ($created | b64enc) (get $there "created"))) -}}
{{- $_ := set .root.Values "drawn" $drawn -}}
{{- end -}}
{{- get $drawn .name | toYaml -}}
{{- end -}}

{{/*
What the API keeps of a key, as `bayling key new` writes it: its hash, and nothing that lets anybody
in. Arguments: root, name (of the Secret), owner, limits (of this key in place of those of all).
*/}}
{{- define "serving.keys.record" -}}
{{- $drawn := include "serving.keys.drawn" . | fromYaml -}}
{{- $key := $drawn.key | b64dec -}}
{{- $record := dict "id" (substr 3 15 $key) "name" .owner "sha256" ($key | sha256sum) "created" ($drawn.created | b64dec) -}}
{{- with .limits -}}
{{- $_ := set $record "limits" . -}}
{{- end -}}
{{ $record | toJson }}
{{- end -}}
