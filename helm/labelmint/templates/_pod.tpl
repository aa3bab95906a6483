{{/* What every container of the chart is held to. */}}
{{- define "labelmint.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "labelmint.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.user }}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "labelmint.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where and how any pod of the chart is scheduled: a node that the server needs may be the only one
that a namespace's pods may use. */}}
{{- define "labelmint.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.tolerations (ternary .Values.gpu.tolerations list (eq .Values.mode "gpu")) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- if and (eq .Values.mode "gpu") .Values.gpu.runtimeClassName }}
runtimeClassName: {{ .Values.gpu.runtimeClassName | quote }}
{{- end }}
{{- end }}

{{/* Resources of the server: those of the mode, the values in their place, and the GPU. CUDA, cuDNN and
the build of an engine need memory of the host that a CPU's server does not. */}}
{{- define "labelmint.resources" -}}
{{- $cpu := dict "requests" (dict "cpu" "1" "memory" "1Gi") "limits" (dict "memory" "3Gi") -}}
{{- $gpu := dict "requests" (dict "cpu" "2" "memory" "4Gi") "limits" (dict "memory" "16Gi") -}}
{{- $resources := mergeOverwrite (ternary $gpu $cpu (eq .Values.mode "gpu")) (deepCopy .Values.resources) -}}
{{- if eq .Values.mode "gpu" -}}
{{- if .Values.gpu.resourceClaims -}}
{{- $claims := list -}}
{{- range .Values.gpu.resourceClaims }}{{ $claims = append $claims (dict "name" .name) }}{{ end -}}
{{- $_ := set $resources "claims" $claims -}}
{{- else -}}
{{- $_ := set $resources.limits .Values.gpu.resource (int .Values.gpu.count) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Containers of others, held to what the chart's own are held to, unless they say otherwise: (list root
containers). */}}
{{- define "labelmint.others" -}}
{{- $root := index . 0 -}}
{{- range index . 1 }}
{{- $security := mergeOverwrite (include "labelmint.containerSecurity" $root | fromYaml) (default dict .securityContext) }}
- {{ mergeOverwrite (deepCopy .) (dict "securityContext" $security) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/* Every flag of the server, by its environment twin. */}}
{{- define "labelmint.environment" -}}
LABELMINT_SERVER_LISTEN: "{{ .Values.service.listen }}:{{ int .Values.service.port }}"
LABELMINT_SERVER_METRICS_PORT: "{{ int .Values.service.metricsPort }}"
LABELMINT_SERVER_ENGINE: {{ include "labelmint.runtimes" . | quote }}
LABELMINT_SERVER_THREADS: "{{ int .Values.engine.threads }}"
LABELMINT_SERVER_BATCH_DELAY: {{ include "labelmint.number" .Values.engine.batchDelaySeconds | quote }}
{{- with .Values.engine.batchSizes }}
LABELMINT_SERVER_BATCH_SIZE: {{ join "," . | quote }}
{{- end }}
{{- if eq .Values.mode "gpu" }}
LABELMINT_SERVER_ENGINE_CACHE: /engines
CUDA_CACHE_PATH: /engines/cuda
{{- if eq .Values.engine.build.at "start" }}
LABELMINT_SERVER_BUILD_ENGINE: "true"
{{- end }}
{{- end }}
LABELMINT_SERVER_MAX_STREAM_AGE: {{ include "labelmint.number" .Values.streams.maxAgeSeconds | quote }}
LABELMINT_SERVER_DRAIN_DELAY: {{ include "labelmint.number" .Values.drain.delaySeconds | quote }}
LABELMINT_SERVER_DRAIN_GRACE: {{ include "labelmint.number" .Values.drain.graceSeconds | quote }}
LABELMINT_SERVER_MODEL_DRAIN: {{ include "labelmint.number" .Values.drain.modelSeconds | quote }}
LABELMINT_SERVER_LOAD_TIMEOUT: {{ include "labelmint.number" .Values.load.timeoutSeconds | quote }}
LABELMINT_SERVER_LOG_FORMAT: {{ .Values.logging.format }}
LABELMINT_SERVER_LOG_LEVEL: {{ .Values.logging.level }}
{{- with .Values.tracing.endpoint }}
LABELMINT_SERVER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- if ne .Values.tls.mode "none" }}
LABELMINT_SERVER_TLS_CERTIFICATE: /tls/tls.crt
LABELMINT_SERVER_TLS_KEY: /tls/tls.key
{{- if .Values.tls.mutual.enabled }}
LABELMINT_SERVER_TLS_CLIENT_AUTHORITIES: /client-authorities/{{ .Values.tls.mutual.key }}
{{- end }}
{{- end }}
{{- if .Values.auth.tokens.secret }}
LABELMINT_SERVER_TOKEN_FILE: /tokens/{{ .Values.auth.tokens.key }}
{{- end }}
{{- if .Values.auth.adminTokens.secret }}
LABELMINT_SERVER_ADMIN_TOKEN_FILE: /admin-tokens/{{ .Values.auth.adminTokens.key }}
{{- end }}
{{- range $name, $value := .Values.limits }}
LABELMINT_SERVER_{{ $name | snakecase | upper }}: {{ include "labelmint.number" $value | quote }}
{{- end }}
{{- end }}

{{/* Whole directories, because a file mounted by subPath never sees a renewed secret. */}}
{{- define "labelmint.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $i, $model := .Values.models }}
{{ include "labelmint.modelMount" (list $i $model true) }}
{{- end }}
{{- if eq .Values.mode "gpu" }}
- {name: engines, mountPath: /engines}
{{- end }}
{{- if ne .Values.tls.mode "none" }}
- {name: tls, mountPath: /tls, readOnly: true}
{{- if .Values.tls.mutual.enabled }}
- {name: client-authorities, mountPath: /client-authorities, readOnly: true}
{{- end }}
{{- end }}
{{- if .Values.auth.tokens.secret }}
- {name: tokens, mountPath: /tokens, readOnly: true}
{{- end }}
{{- if .Values.auth.adminTokens.secret }}
- {name: admin-tokens, mountPath: /admin-tokens, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "labelmint.modelMount" -}}
{{- $model := index . 1 -}}
- name: model-{{ index . 0 }}
  mountPath: /models/{{ $model.name }}
  readOnly: {{ index . 2 }}
  {{- if and (eq $model.source "claim") $model.claim.subPath }}
  subPath: {{ $model.claim.subPath | quote }}
  {{- end }}
{{- end }}

{{- define "labelmint.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- range $i, $model := .Values.models }}
- name: model-{{ $i }}
  {{- if eq $model.source "claim" }}
  persistentVolumeClaim: {claimName: {{ $model.claim.name | quote }}, readOnly: true}
  {{- else if eq $model.source "image" }}
  image:
    reference: {{ $model.image.reference | quote }}
    pullPolicy: {{ default "IfNotPresent" $model.image.pullPolicy }}
  {{- else }}
  emptyDir: {sizeLimit: {{ default "10Gi" $model.download.sizeLimit | quote }}}
  {{- end }}
{{- end }}
{{- if eq .Values.mode "gpu" }}
- name: engines
  {{- if .Values.engine.cache.claim }}
  persistentVolumeClaim: {claimName: {{ .Values.engine.cache.claim | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.engine.cache.sizeLimit | quote }}}
  {{- end }}
{{- end }}
{{- if ne .Values.tls.mode "none" }}
- name: tls
  secret: {secretName: {{ include "labelmint.tlsSecret" . | quote }}, defaultMode: 0440}
{{- if .Values.tls.mutual.enabled }}
- name: client-authorities
  secret:
    secretName: {{ include "labelmint.caSecret" . | quote }}
    items: [{key: {{ .Values.tls.mutual.key | quote }}, path: {{ .Values.tls.mutual.key | quote }}}]
{{- end }}
{{- end }}
{{- if .Values.auth.tokens.secret }}
- name: tokens
  secret: {secretName: {{ .Values.auth.tokens.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- if .Values.auth.adminTokens.secret }}
- name: admin-tokens
  secret: {secretName: {{ .Values.auth.adminTokens.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
