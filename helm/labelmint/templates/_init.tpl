{{/* Before the server: fill what is downloaded, pin what is pinned, build engines. */}}
{{- define "labelmint.initContainers" -}}
{{- include "labelmint.others" (list . .Values.extraInitContainers) }}
{{- range $i, $model := .Values.models }}
{{- if eq $model.source "download" }}
- name: download-{{ $i }}
  image: {{ $model.download.image | quote }}
  command: {{ toJson $model.download.command }}
  env:
    - {name: MODEL_DIR, value: /models/{{ $model.name }}}
    - {name: HOME, value: /tmp}
    {{- with $model.download.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $model.download.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml (default $.Values.init.resources $model.download.resources) | nindent 4 }}
  securityContext:
    {{- include "labelmint.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "labelmint.modelMount" (list $i $model false) | nindent 4 }}
{{- end }}
{{- if $model.bundleId }}
- name: verify-{{ $i }}
  image: {{ include "labelmint.image" $ | quote }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: [python, -m, bundle, verify, /models/{{ $model.name }}, --bundle-id, {{ $model.bundleId | quote }}]
  resources:
    {{- toYaml $.Values.init.resources | nindent 4 }}
  securityContext:
    {{- include "labelmint.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    {{- include "labelmint.modelMount" (list $i $model true) | nindent 4 }}
{{- end }}
{{- if eq $.Values.engine.build.at "init" }}
- name: engine-{{ $i }}
  image: {{ default (include "labelmint.image" $) $.Values.engine.build.image | quote }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: {{ toJson (concat (list "python" "-m" "export.engine_command" (printf "/models/%s" $model.name) "--cache" "/engines") (ternary (list "--fused") list (eq (include "labelmint.runtime" $) "tensorrt-fused")) $.Values.engine.build.args) }}
  env:
    - {name: CUDA_CACHE_PATH, value: /engines/cuda}
  resources:
    {{- include "labelmint.resources" $ | nindent 4 }}
  securityContext:
    {{- include "labelmint.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: engines, mountPath: /engines}
    {{- include "labelmint.modelMount" (list $i $model true) | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
