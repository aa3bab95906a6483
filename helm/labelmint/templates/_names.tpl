{{- define "labelmint.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "labelmint.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "labelmint.selector" -}}
app.kubernetes.io/name: {{ include "labelmint.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "labelmint.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "labelmint.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of an object and more: (list root more). A key that both have is written once. */}}
{{- define "labelmint.labelsWith" -}}
{{- mergeOverwrite (include "labelmint.labels" (index . 0) | fromYaml) (index . 1) | toYaml -}}
{{- end }}

{{/* Labels of a pod that is no server. */}}
{{- define "labelmint.clientLabels" -}}
{{- mergeOverwrite (include "labelmint.selector" . | fromYaml) .Values.commonLabels .Values.podLabels (dict "app.kubernetes.io/component" "client") | toYaml -}}
{{- end }}

{{- define "labelmint.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "labelmint.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "labelmint.runtime" -}}
{{- default (ternary "tensorrt" "onnxruntime" (eq .Values.mode "gpu")) .Values.engine.runtime -}}
{{- end }}

{{/* All that may run a bundle, in the order in which they are tried. */}}
{{- define "labelmint.runtimes" -}}
{{- prepend .Values.engine.fallbacks (include "labelmint.runtime" .) | join "," -}}
{{- end }}

{{/* The Dockerfile's target: TensorRT is in one of its own, and so is TensorRT for RTX. */}}
{{- define "labelmint.target" -}}
{{- if eq .Values.mode "cpu" -}}cpu
{{- else if contains "tensorrt-rtx" (include "labelmint.runtimes" .) -}}gpu-rtx
{{- else if contains "tensorrt" (include "labelmint.runtimes" .) -}}gpu-trt
{{- else -}}gpu
{{- end -}}
{{- end }}

{{/* A registry of a parent chart takes precedence, as in charts that read the same value. */}}
{{- define "labelmint.repository" -}}
{{- $registry := default .Values.image.registry (.Values.global).imageRegistry -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .Values.image.repository -}}
{{- end }}

{{- define "labelmint.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" (include "labelmint.repository" .) .Values.image.digest -}}
{{- else -}}
{{- $tag := default (printf "%s-%s" .Chart.AppVersion (include "labelmint.target" .)) .Values.image.tag -}}
{{- printf "%s:%s" (include "labelmint.repository" .) $tag -}}
{{- end -}}
{{- end }}

{{/* Helm reads every number as a float, and would write large ones as 1e+09. */}}
{{- define "labelmint.number" -}}
{{- if eq (float64 .) (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* The series of this release's servers: names of their pods have just two more parts. */}}
{{- define "labelmint.series" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "labelmint.fullname" . }}-[^-]+-[^-]+"
{{- end }}

{{- define "labelmint.tlsSecret" -}}
{{- if eq .Values.tls.mode "certManager" -}}
{{ include "labelmint.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.secret }}
{{- end -}}
{{- end }}

{{- define "labelmint.caSecret" -}}
{{- default (include "labelmint.tlsSecret" .) .Values.tls.mutual.secret -}}
{{- end }}

{{- define "labelmint.replicated" -}}
{{- if or (ne .Values.autoscaling.mode "none") (gt (int .Values.replicas) 1) -}}true{{- end -}}
{{- end }}
