{{/* Values that fit the schema and still cannot work: each is one line with the fix. */}}
{{- define "labelmint.check" -}}
{{- $v := .Values -}}
{{- if not $v.models -}}
  {{- fail "models is empty; name a bundle, such as --set models[0].name=cars,models[0].source=claim,models[0].claim.name=bundles; README.md of the chart has the other sources" -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.models -}}
  {{- if has .name $names -}}
    {{- fail (printf "models: two are named %q; give each a name of its own" .name) -}}
  {{- end -}}
  {{- $names = append $names .name -}}
  {{- if and (eq .source "image") (semverCompare "<1.33-0" $.Capabilities.KubeVersion.Version) -}}
    {{- fail (printf "models: %s has source=image, which needs Kubernetes 1.33, not %s; use source=claim or source=download" .name $.Capabilities.KubeVersion.Version) -}}
  {{- end -}}
{{- end -}}
{{- $runtime := include "labelmint.runtime" . -}}
{{- if eq $v.mode "gpu" -}}
  {{- if and (not $v.gpu.resourceClaims) (or (not $v.gpu.resource) (lt (int $v.gpu.count) 1)) -}}
    {{- fail (printf "gpu: mode=gpu with resource=%q and count=%d asks for no GPU; set gpu.resource=nvidia.com/gpu and gpu.count=1, or mode=cpu" $v.gpu.resource (int $v.gpu.count)) -}}
  {{- end -}}
  {{- if eq $runtime "onnxruntime" -}}
    {{- fail "engine.runtime=onnxruntime does not use the GPU of mode=gpu; set engine.runtime=onnxruntime-cuda or tensorrt, or mode=cpu" -}}
  {{- end -}}
{{- else if not (has $runtime (list "onnxruntime" "fake")) -}}
  {{- fail (printf "engine.runtime=%s needs a GPU; set mode=gpu" $runtime) -}}
{{- end -}}
{{- $tried := list $runtime -}}
{{- range $v.engine.fallbacks -}}
  {{- if has . $tried -}}
    {{- fail (printf "engine.fallbacks has %s, which was tried before; name each runtime once" .) -}}
  {{- end -}}
  {{- if and (eq $v.mode "cpu") (not (has . (list "onnxruntime" "fake"))) -}}
    {{- fail (printf "engine.fallbacks has %s, which needs a GPU; set mode=gpu" .) -}}
  {{- end -}}
  {{- $tried = append $tried . -}}
{{- end -}}
{{- $others := without $tried "tensorrt-rtx" "onnxruntime" "fake" -}}
{{- if and (has "tensorrt-rtx" $tried) $others -}}
  {{- fail (printf "engine.runtime and engine.fallbacks name tensorrt-rtx and %s, which are in different images; name one of them" (first $others)) -}}
{{- end -}}
{{- $before := 0 -}}
{{- range $v.engine.batchSizes -}}
  {{- if le (int .) $before -}}
    {{- fail (printf "engine.batchSizes has %d after %d; list them ascending, each once" (int .) $before) -}}
  {{- end -}}
  {{- $before = int . -}}
{{- end -}}
{{- $build := $v.engine.build -}}
{{- $built := has $runtime (list "tensorrt" "tensorrt-fused") -}}
{{- if and (ne $build.at "never") (not $built) -}}
  {{- fail (printf "engine.build.at=%s builds for TensorRT and engine.runtime is %s; set mode=gpu and engine.runtime=tensorrt, or engine.build.at=never" $build.at $runtime) -}}
{{- end -}}
{{- if and (eq $build.at "never") $built (not $v.engine.cache.claim) -}}
  {{- fail (printf "engine.runtime=%s finds no engine in an empty cache; set engine.build.at=start, or engine.cache.claim to a claim that has it" $runtime) -}}
{{- end -}}
{{- $startup := mul $v.probes.startup.periodSeconds $v.probes.startup.failureThreshold -}}
{{- if and (eq $build.at "start") (lt $startup 1800) -}}
  {{- fail (printf "probes.startup allows %d s and engine.build.at=start takes minutes for each model; set probes.startup.failureThreshold=%d" $startup (div 3600 (int $v.probes.startup.periodSeconds))) -}}
{{- end -}}
{{- include "labelmint.checkObjects" . -}}
{{- include "labelmint.checkLife" . -}}
{{- include "labelmint.checkAutoscaling" . -}}
{{- include "labelmint.checkAccess" . -}}
{{- if eq (int $v.service.port) (int $v.service.metricsPort) -}}
  {{- fail (printf "service.port and service.metricsPort are both %d; give them two numbers" (int $v.service.port)) -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
  {{- fail "gateway.enabled=true needs gateway.parentRefs, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- $policy := $v.gateway.backendTls -}}
{{- if and $policy.enabled (not $v.gateway.enabled) -}}
  {{- fail "gateway.backendTls.enabled=true needs a route; set gateway.enabled=true" -}}
{{- end -}}
{{- if and $policy.enabled (eq $v.tls.mode "none") -}}
  {{- fail "gateway.backendTls.enabled=true and tls.mode=none, so pods take plain text alone; set tls.mode=secret or certManager" -}}
{{- end -}}
{{- if and $v.dataset.enabled (not $v.dataset.claim) -}}
  {{- fail "dataset.enabled=true needs dataset.claim, an existing claim that all parts can write to" -}}
{{- end -}}
{{- if and $v.dataset.enabled $v.dataset.model (not (has $v.dataset.model $names)) -}}
  {{- fail (printf "dataset.model=%s is no name under models; set it to one of: %s" $v.dataset.model (join ", " $names)) -}}
{{- end -}}
{{- if and $v.dataset.enabled (not $v.dataset.model) (gt (len $v.models) 1) -}}
  {{- fail (printf "dataset.model is empty and there are %d models; set it to one of: %s" (len $v.models) (join ", " $names)) -}}
{{- end -}}
{{- end }}

{{- define "labelmint.checkLife" -}}
{{- $age := .Values.streams.maxAgeSeconds -}}
{{- if and (gt (float64 $age) 0.0) (lt (float64 $age) 1.0) -}}
  {{- fail (printf "streams.maxAgeSeconds=%v is under 1; set it to 1 to 86400, such as 300, or to 0 for streams that stay" $age) -}}
{{- end -}}
{{- $d := .Values.drain -}}
{{- $drain := addf $d.preStopSeconds $d.delaySeconds $d.graceSeconds -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $drain -}}
  {{- fail (printf "terminationGracePeriodSeconds=%d is not more than drain.preStopSeconds + delaySeconds + graceSeconds = %v; set it to %d or more" (int .Values.terminationGracePeriodSeconds) $drain (add 5 (ceil $drain | int))) -}}
{{- end -}}
{{- $r := .Values.rollout -}}
{{- if and (has (toString $r.maxSurge) (list "0" "0%")) (has (toString $r.maxUnavailable) (list "0" "0%")) -}}
  {{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0, so no pod could be replaced; set one of them to 1" -}}
{{- end -}}
{{- end }}

{{- define "labelmint.checkAutoscaling" -}}
{{- $a := .Values.autoscaling -}}
{{- if ne $a.mode "none" -}}
  {{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}
    {{- fail (printf "autoscaling.minReplicas=%d is more than autoscaling.maxReplicas=%d; lower it or raise the other" (int $a.minReplicas) (int $a.maxReplicas)) -}}
  {{- end -}}
  {{- if lt (int $a.minReplicas) 1 -}}
    {{- fail "autoscaling.minReplicas=0 never comes back: without a replica nothing waits in a queue; set it to 1" -}}
  {{- end -}}
{{- end -}}
{{- if and (eq $a.mode "keda") (not $a.keda.serverAddress) -}}
  {{- fail "autoscaling.keda.serverAddress is empty; set it to your Prometheus, such as http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- end }}

{{- define "labelmint.checkAccess" -}}
{{- $v := .Values -}}
{{- if and (eq $v.tls.mode "secret") (not $v.tls.secret) -}}
  {{- fail "tls.secret is empty and tls.mode=secret; set it to an existing secret of type kubernetes.io/tls" -}}
{{- end -}}
{{- if and (ne $v.tls.mode "secret") $v.tls.secret -}}
  {{- fail (printf "tls.secret=%s is not used with tls.mode=%s; set tls.mode=secret or leave tls.secret empty" $v.tls.secret $v.tls.mode) -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not $v.tls.certManager.issuer.name) -}}
  {{- fail "tls.certManager.issuer.name is empty and tls.mode=certManager; set it to an existing issuer" -}}
{{- end -}}
{{- if and $v.tls.mutual.enabled (eq $v.tls.mode "none") -}}
  {{- fail "tls.mutual.enabled=true needs TLS; set tls.mode=secret or certManager" -}}
{{- end -}}
{{- if or $v.tests.enabled $v.dataset.enabled -}}
  {{- if and $v.tls.mutual.enabled (not $v.client.tlsSecret) -}}
    {{- fail "client.tlsSecret is empty and tls.mutual.enabled=true; set it to a secret with a client's tls.crt and tls.key, or tests.enabled=false and dataset.enabled=false" -}}
  {{- end -}}
  {{- if and $v.auth.tokens.secret (not $v.client.tokenSecret.name) -}}
    {{- fail "client.tokenSecret.name is empty and auth.tokens.secret is set; name a secret with one token in it, or set tests.enabled=false and dataset.enabled=false" -}}
  {{- end -}}
{{- end -}}
{{- end }}
