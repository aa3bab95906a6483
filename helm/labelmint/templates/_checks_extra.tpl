{{/* Objects of the user's own, beside those that the chart makes: (list root texts), where the texts are
extraObjects with their templates filled in. */}}
{{- define "labelmint.checkExtraObjects" -}}
{{- $texts := index . 1 -}}
{{- $root := index . 0 -}}
{{- with $root -}}
{{- $v := .Values -}}
{{- $name := include "labelmint.fullname" . -}}
{{- $own := list (printf "apps Deployment %s" $name) (printf " Service %s" $name) (printf " Service %s-headless" $name) (printf " Pod %s-test" $name) -}}
{{- if $v.serviceAccount.create -}}
  {{- $own = append $own (printf " ServiceAccount %s" (include "labelmint.serviceAccount" .)) -}}
{{- end -}}
{{- if $v.metrics.dashboard.enabled -}}
  {{- $own = append $own (printf " ConfigMap %s-dashboard" $name) -}}
{{- end -}}
{{- $made := dict
  "monitoring.coreos.com PrometheusRule" $v.metrics.alerts.enabled
  "autoscaling HorizontalPodAutoscaler" (eq $v.autoscaling.mode "hpa")
  "keda.sh ScaledObject" (eq $v.autoscaling.mode "keda")
  "cert-manager.io Certificate" (eq $v.tls.mode "certManager")
  "gateway.networking.k8s.io GRPCRoute" $v.gateway.enabled
  "gateway.networking.k8s.io BackendTLSPolicy" (and $v.gateway.enabled $v.gateway.backendTls.enabled)
  "monitoring.coreos.com ServiceMonitor" (eq $v.metrics.monitor.kind "service")
  "monitoring.coreos.com PodMonitor" (eq $v.metrics.monitor.kind "pod")
  "networking.k8s.io NetworkPolicy" $v.networkPolicy.enabled
  "policy PodDisruptionBudget" (and $v.podDisruptionBudget.enabled (include "labelmint.replicated" .)) -}}
{{- range $kind, $is := $made -}}
  {{- if $is -}}
    {{- $own = append $own (printf "%s %s" $kind $name) -}}
  {{- end -}}
{{- end -}}
{{- $objects := list -}}
{{- range $i, $each := $v.extraObjects -}}
  {{- $filled := index $texts $i | fromYaml -}}
  {{- if not $filled.metadata -}}
    {{- fail (printf "extraObjects[%d] is no object once its templates are filled in; write templates with quote, toJson or nindent" $i) -}}
  {{- end -}}
  {{- $name := toString $filled.metadata.name -}}
  {{- $said := printf "%s %s" .kind $name -}}
  {{- $group := ternary (dir .apiVersion) "" (contains "/" .apiVersion) -}}
  {{- if eq $group "rbac.authorization.k8s.io" -}}
    {{- if or (contains "/" $name) (contains "%" $name) (has $name (list "" "." "..")) -}}
      {{- fail (printf "extraObjects[%d] has the name %q; give it one without / and %%, such as system:reader" $i $name) -}}
    {{- end -}}
  {{- else if or (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" $name)) (gt (len $name) 253) -}}
    {{- fail (printf "extraObjects[%d] has the name %q; give it one of up to 253 small letters, digits, - and ., such as a-claim" $i (trunc 100 $name)) -}}
  {{- end -}}
  {{- $object := printf "%s %s" $group $said -}}
  {{- $namespace := default $root.Release.Namespace $filled.metadata.namespace | toString -}}
  {{- if or (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $namespace)) (gt (len $namespace) 63) -}}
    {{- fail (printf "extraObjects[%d] has the namespace %q; give it one of up to 63 small letters, digits and -" $i (trunc 100 $namespace)) -}}
  {{- end -}}
  {{- $place := printf "%s of %s" $object $namespace -}}
  {{- if and (has $object $own) (eq $namespace $root.Release.Namespace) -}}
    {{- fail (printf "extraObjects has %s, which the chart makes; give it another name" $said) -}}
  {{- end -}}
  {{- if has $place $objects -}}
    {{- fail (printf "extraObjects has %s twice; leave one of them out" $said) -}}
  {{- end -}}
  {{- $objects = append $objects $place -}}
{{- end -}}
{{- end -}}
{{- end }}
