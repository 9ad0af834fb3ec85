{{/*
A pod of Ray. KubeRay adds the command, and labels by which its services find the pod: the chart
leaves app.kubernetes.io/name to it. Arguments: root, type (head or worker), group, image, api and
engines (whether they are there).
*/}}
{{- define "serving.ray.pod" -}}
{{- $root := .root -}}
{{- /* KubeRay gives such a head a service account of its own: read pods, patch this cluster. */ -}}
{{- $autoscaler := and (eq .type "head") $root.Values.ray.autoscaling -}}
metadata:
  labels:
    {{- include "serving.podLabels" (dict "root" $root "component" "ray") | nindent 4 }}
    bayling/mlflow-client: "true"
    {{- if .api }}
    bayling/api: "true"
    {{- end }}
    {{- if .engines }}
    bayling/engines: "true"
    {{- end }}
spec:
  {{- if not $autoscaler }}
  serviceAccountName: {{ include "serving.name" $root }}-ray
  {{- end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Above the time that Ray drains in, or the pod is killed in the middle of it.
  terminationGracePeriodSeconds: {{ add $root.Values.ray.drainSeconds 30 }}
  {{- with include "serving.pullSecrets" $root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .group.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- include "serving.podSecurity" $root | nindent 4 }}
  containers:
    - name: ray-{{ .type }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env:
        - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ $root.Values.ray.drainSeconds | quote }}}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        # One event loop in a replica instead of three, and gRPC between replicas; but requests come
        # through Ray Serve's proxies, which KubeRay's service and probes know.
        - {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
        - {name: RAY_SERVE_ENABLE_DIRECT_INGRESS, value: "0"}
        - {name: TOKENIZERS_PARALLELISM, value: "false"}
        # Models come from MLflow; nothing is looked for elsewhere.
        - {name: HF_HUB_OFFLINE, value: "1"}
        {{- include "serving.mlflowEnv" $root | nindent 8 }}
      ports:
        {{- if eq .type "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: serve, containerPort: {{ include "serving.port" $root }}}
        - {name: metrics, containerPort: 8080}
        - {name: agent, containerPort: 52365}
      # Ray's own answer, which needs no token: the raylet lives, and on the head the GCS too.
      startupProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 60
      {{- if eq .type "head" }}
      # KubeRay deploys nothing to a head that is not ready, so this must not wait for a model; it
      # asks the head's proxy itself before it lets requests come here.
      readinessProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- else if .api }}
      # Whoever comes here is answered, if only that no model is loaded.
      readinessProbe:
        httpGet: {path: /-/healthz, port: serve}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- else }}
      # A request that comes to this pod would be answered by a model.
      readinessProbe:
        httpGet: {path: /readyz, port: serve}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      {{- end }}
      livenessProbe:
        httpGet: {path: /api/healthz, port: agent}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 12
      resources:
        {{- toYaml .group.resources | nindent 8 }}
      securityContext:
        {{- include "serving.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        - {name: cache, mountPath: {{ include "serving.cachePath" $root }}}
        {{- if .api }}
        - {name: keys, mountPath: {{ include "serving.keysPath" $root }}, readOnly: true}
        {{- end }}
        {{- with $root.Values.ray.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    # Ray's objects and NCCL's buffers live here; it counts as the pod's memory.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ default .group.resources.limits.memory .group.shm }}}
    - name: cache
      {{- if $root.Values.cache.existingClaim }}
      persistentVolumeClaim: {claimName: {{ $root.Values.cache.existingClaim | quote }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $root.Values.cache.size }}}
      {{- end }}
    {{- if .api }}
    # Changes arrive within a minute or two; the API looks for them every second.
    - name: keys
      projected:
        defaultMode: 0440
        sources:
          - secret: {name: {{ include "serving.name" $root }}-keys}
          {{- with $root.Values.keys.existingSecret }}
          - secret: {name: {{ . | quote }}}
          {{- end }}
    {{- end }}
    {{- if $autoscaler }}
    {{- include "serving.apiAccess" $root | nindent 4 }}
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
