{{/*
A pod of Ray. KubeRay adds the command, and labels by which its services find the pod: the chart
leaves app.kubernetes.io/name to it. Arguments: root, type (head or worker), group, image.
*/}}
{{- define "platform.ray.pod" -}}
{{- $root := .root -}}
{{- /* KubeRay gives such a head a service account of its own: read pods, patch this cluster. */ -}}
{{- $autoscaler := and (eq .type "head") $root.Values.ray.autoscaling -}}
metadata:
  labels:
    {{- include "platform.podLabels" (dict "root" $root "component" "ray") | nindent 4 }}
    bayling/mlflow-client: "true"
spec:
  {{- if not $autoscaler }}
  serviceAccountName: {{ include "platform.jobs.name" $root }}
  {{- end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Above the time that Ray drains in, or the pod is killed in the middle of it.
  terminationGracePeriodSeconds: {{ add $root.Values.ray.drainSeconds 30 }}
  {{- with include "platform.pullSecrets" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .group.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- include "platform.podSecurity" (dict "user" 1000) | nindent 4 }}
  containers:
    - name: ray-{{ .type }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env:
        - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ $root.Values.ray.drainSeconds | quote }}}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        - {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
        {{- include "platform.clientEnv" $root | nindent 8 }}
      ports:
        {{- if eq .type "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: metrics, containerPort: 8080}
        - {name: agent, containerPort: 52365}
      # Ray's own answer, which needs no token: the raylet lives, and on the head the GCS too.
      startupProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      livenessProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 12
      resources:
        {{- toYaml .group.resources | nindent 8 }}
      securityContext:
        {{- include "platform.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        {{- with $root.Values.ray.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Ray's objects (30 % of the memory) and NCCL's buffers live here; it counts as the pod's memory.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ default .group.resources.limits.memory .group.shm }}}
    {{- if $autoscaler }}
    - name: api-access
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3607}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- end }}
    {{- with $root.Values.ray.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .group.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .group.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
