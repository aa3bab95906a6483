{{/* What an API server would refuse, and no schema of values can see: each is one line with the fix. */}}
{{- define "labelmint.checkObjects" -}}
{{- $v := .Values -}}
{{- $name := include "labelmint.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
  {{- fail (printf "release %s gives the name %s, which no service can have; set fullnameOverride to small letters, digits and -, such as labels" .Release.Name $name) -}}
{{- end -}}
{{- include "labelmint.checkImage" . -}}
{{- range $key := list "commonLabels" "podLabels" -}}
  {{- range $label, $_ := get $v $key -}}
    {{- if or (hasPrefix "app.kubernetes.io/" $label) (eq $label "helm.sh/chart") -}}
      {{- fail (printf "%s has %s, which is a label of the chart's own; give it another key" $key $label) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "labelmint.checkResources" (list "resources" (include "labelmint.resources" . | fromYaml)) -}}
{{- include "labelmint.checkResources" (list "init.resources" $v.init.resources) -}}
{{- include "labelmint.checkResources" (list "tests.resources" $v.tests.resources) -}}
{{- include "labelmint.checkResources" (list "dataset.resources" $v.dataset.resources) -}}
{{- range $v.models -}}
  {{- if eq .source "claim" -}}
    {{- include "labelmint.checkPath" (list (printf "models: %s has claim.subPath" .name) .claim.subPath) -}}
  {{- else if eq .source "download" -}}
    {{- include "labelmint.checkResources" (list (printf "models: %s has download.resources, where" .name) (default dict .download.resources)) -}}
    {{- $key := printf "models: download.env of %s" .name -}}
    {{- include "labelmint.checkSources" (list $key .download.env) -}}
    {{- include "labelmint.checkFrom" (list (printf "models: download.envFrom of %s" .name) .download.envFrom) -}}
    {{- range .download.env -}}
      {{- if eq .name "MODEL_DIR" -}}
        {{- fail (printf "%s has MODEL_DIR, which the chart sets; leave it out" $key) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "labelmint.checkPod" . -}}
{{- include "labelmint.checkTolerations" (list "tolerations" $v.tolerations) -}}
{{- include "labelmint.checkTolerations" (list "gpu.tolerations" $v.gpu.tolerations) -}}
{{- include "labelmint.checkExpressions" (list "affinity" $v.affinity) -}}
{{- include "labelmint.checkExpressions" (list "networkPolicy" $v.networkPolicy) -}}
{{- include "labelmint.checkPeers" (list "networkPolicy.clients" $v.networkPolicy.clients) -}}
{{- include "labelmint.checkPeers" (list "networkPolicy.monitoring" $v.networkPolicy.monitoring) -}}
{{- range $i, $rule := $v.networkPolicy.egress -}}
  {{- include "labelmint.checkPeers" (list (printf "networkPolicy.egress[%d].to" $i) .to) -}}
  {{- range .ports -}}
    {{- if and .endPort (or (not .port) (kindIs "string" .port) (lt (int .endPort) (int .port))) -}}
      {{- fail (printf "networkPolicy.egress[%d] has endPort=%v and port=%v; set port to a number up to endPort, or leave endPort out" $i .endPort (default "" .port)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $pairs := list -}}
{{- range $v.topologySpread -}}
  {{- $pair := printf "%s, %s" .topologyKey (default "ScheduleAnyway" .whenUnsatisfiable) -}}
  {{- if has $pair $pairs -}}
    {{- fail (printf "topologySpread has %s twice; leave one of them out" $pair) -}}
  {{- end -}}
  {{- $pairs = append $pairs $pair -}}
  {{- if and .minDomains (ne (default "" .whenUnsatisfiable) "DoNotSchedule") -}}
    {{- fail (printf "topologySpread: %s has minDomains=%d, which is for DoNotSchedule; set whenUnsatisfiable=DoNotSchedule, or leave it out" .topologyKey (int .minDomains)) -}}
  {{- end -}}
  {{- range .matchLabelKeys -}}
    {{- if hasPrefix "app.kubernetes.io/" . -}}
      {{- fail (printf "topologySpread: matchLabelKeys has %s, by which pods are selected already; leave it out" .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $c := $v.tls.certManager -}}
{{- $duration := include "labelmint.seconds" $c.duration | float64 -}}
{{- $before := include "labelmint.seconds" $c.renewBefore | float64 -}}
{{- if and (eq $v.tls.mode "certManager") (or (lt $duration 3600.0) (lt $before 300.0) (ge $before $duration)) -}}
  {{- fail (printf "tls.certManager: duration=%s and renewBefore=%s; set a duration of 1h or more, and renewBefore from 5m to less than that" $c.duration $c.renewBefore) -}}
{{- end -}}
{{- end }}

{{- define "labelmint.checkImage" -}}
{{- if ne .Values.image.pullPolicy "Never" -}}
  {{- $name := include "labelmint.repository" . -}}
  {{- if not (contains "/" $name) -}}
    {{- fail (printf "image: %s is in no registry; push what `make image` builds and set image.registry to the place, such as ghcr.io/team, or set image.pullPolicy=Never if each node has the image" $name) -}}
  {{- end -}}
  {{- $builder := .Values.engine.build.image -}}
  {{- if and $builder (not (contains "/" $builder)) -}}
    {{- fail (printf "engine.build.image: %s is in no registry; give its place, too, such as ghcr.io/team/%s, or set image.pullPolicy=Never if each node has the image" $builder $builder) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Volumes, mounts, containers and variables of the server's pod, each name once. */}}
{{- define "labelmint.checkPod" -}}
{{- $v := .Values -}}
{{- $volumes := list -}}
{{- range include "labelmint.volumes" . | fromYamlArray -}}
  {{- if has .name $volumes -}}
    {{- fail (printf "extraVolumes has %s, which is there already; give it another name" .name) -}}
  {{- end -}}
  {{- $volumes = append $volumes .name -}}
{{- end -}}
{{- include "labelmint.checkMounts" (list "extraVolumeMounts" (include "labelmint.mounts" . | fromYamlArray) $volumes) -}}
{{- $claims := list -}}
{{- range $v.gpu.resourceClaims -}}
  {{- if has .name $claims -}}
    {{- fail (printf "gpu.resourceClaims has %s twice; give each a name of its own" .name) -}}
  {{- end -}}
  {{- $claims = append $claims .name -}}
{{- end -}}
{{- $names := list "server" -}}
{{- range $i, $model := $v.models -}}
  {{- $names = concat $names (list (printf "download-%d" $i) (printf "verify-%d" $i) (printf "engine-%d" $i)) -}}
{{- end -}}
{{- range $key := list "sidecars" "extraInitContainers" -}}
  {{- range get $v $key -}}
    {{- if has .name $names -}}
      {{- fail (printf "%s has %s, a name that another container has; give it another name" $key .name) -}}
    {{- end -}}
    {{- $names = append $names .name -}}
    {{- include "labelmint.checkLifecycle" (list $key .) -}}
    {{- include "labelmint.checkResources" (list (printf "%s: %s has resources, where" $key .name) (default dict .resources)) -}}
    {{- include "labelmint.checkClaims" (list (printf "%s: %s" $key .name) (default dict .resources) $claims) -}}
    {{- include "labelmint.checkPorts" (list (printf "%s: %s" $key .name) .ports) -}}
    {{- include "labelmint.checkSources" (list (printf "%s: env of %s" $key .name) .env) -}}
    {{- include "labelmint.checkFrom" (list (printf "%s: envFrom of %s" $key .name) .envFrom) -}}
    {{- include "labelmint.checkMounts" (list (printf "%s: volumeMounts of %s" $key .name) .volumeMounts $volumes) -}}
  {{- end -}}
{{- end -}}
{{- include "labelmint.checkSources" (list "extraEnv" $v.extraEnv) -}}
{{- $variables := include "labelmint.environment" . | fromYaml | keys -}}
{{- range $v.extraEnv -}}
  {{- if has .name $variables -}}
    {{- fail (printf "extraEnv has %s, which the chart sets or which is there twice; set the chart's value for it, or leave one out" .name) -}}
  {{- end -}}
  {{- $variables = append $variables .name -}}
{{- end -}}
{{- if and $claims (semverCompare "<1.31-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "gpu.resourceClaims needs Kubernetes 1.31, not %s; leave it empty and set gpu.resource and gpu.count" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end }}

{{/* (list said resources claims), where the claims are names that the pod has in mode gpu */}}
{{- define "labelmint.checkClaims" -}}
{{- $said := index . 0 -}}{{- $claims := index . 2 -}}
{{- range (index . 1).claims -}}
  {{- if not (has .name $claims) -}}
    {{- fail (printf "%s claims %s, which the pod does not have; set mode=gpu and add it to gpu.resourceClaims, or leave it out" $said .name) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list said ports) */}}
{{- define "labelmint.checkPorts" -}}
{{- $said := index . 0 -}}
{{- $names := list -}}
{{- range index . 1 -}}
  {{- if and .name (has .name $names) -}}
    {{- fail (printf "%s has two ports named %s; give each a name of its own" $said .name) -}}
  {{- end -}}
  {{- $names = append $names .name -}}
{{- end -}}
{{- end }}

{{/* (list key tolerations) */}}
{{- define "labelmint.checkTolerations" -}}
{{- $key := index . 0 -}}
{{- range $i, $one := index . 1 -}}
  {{- $at := printf "%s[%d]" $key $i -}}
  {{- if eq (default "" .operator) "Exists" -}}
    {{- with .value -}}
      {{- fail (printf "%s has operator=Exists and value=%s, which is for Equal; leave value out, or set operator=Equal" $at .) -}}
    {{- end -}}
  {{- else if not .key -}}
    {{- fail (printf "%s has no key; name the taint's key, or set operator=Exists to tolerate every taint" $at) -}}
  {{- end -}}
  {{- if and (hasKey . "tolerationSeconds") (ne (default "" .effect) "NoExecute") -}}
    {{- fail (printf "%s has tolerationSeconds=%v, which is for evictions; set effect=NoExecute, or leave it out" $at .tolerationSeconds) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* The values that the operators of every selector in a value need: (list key value). */}}
{{- define "labelmint.checkExpressions" -}}
{{- $key := index . 0 -}}{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
  {{- if and (hasKey $value "topologyKey") (not (hasKey $value "labelSelector")) -}}
    {{- range list "matchLabelKeys" "mismatchLabelKeys" -}}
      {{- if get $value . -}}
        {{- fail (printf "%s has %s without labelSelector; add one, such as labelSelector={} for all pods, or leave it out" $key .) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- range $label := ternary (default list $value.matchLabelKeys) list (hasKey $value "topologyKey") -}}
    {{- if has $label (default list $value.mismatchLabelKeys) -}}
      {{- fail (printf "%s has %s in matchLabelKeys and in mismatchLabelKeys; leave one of them out" $key $label) -}}
    {{- end -}}
  {{- end -}}
  {{- range $name, $inner := $value -}}
    {{- include "labelmint.checkExpressions" (list (printf "%s.%s" $key $name) $inner) -}}
    {{- range ternary $inner list (and (eq $name "matchExpressions") (kindIs "slice" $inner)) -}}
      {{- $said := printf "%s.%s: %s has operator=%s" $key $name .key .operator -}}
      {{- $numbers := has .operator (list "Gt" "Lt") -}}
      {{- if and (has .operator (list "In" "NotIn")) (not .values) -}}
        {{- fail (printf "%s and no values; add the values, or set operator=Exists" $said) -}}
      {{- else if and (has .operator (list "Exists" "DoesNotExist")) .values -}}
        {{- fail (printf "%s, which takes no values; leave values out, or set operator=In" $said) -}}
      {{- else if and $numbers (not (and (eq (len (default list .values)) 1) (regexMatch "^[0-9]+$" (first .values)))) -}}
        {{- fail (printf "%s, which takes one whole number; give values such as [\"8\"]" $said) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- else if kindIs "slice" $value -}}
  {{- range $i, $inner := $value -}}
    {{- include "labelmint.checkExpressions" (list (printf "%s[%d]" $key $i) $inner) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list key container) */}}
{{- define "labelmint.checkLifecycle" -}}
{{- $key := index . 0 -}}{{- $one := index . 1 -}}
{{- if and (eq $key "sidecars") $one.restartPolicy -}}
  {{- fail (printf "sidecars: %s has restartPolicy=%v, which is for extraInitContainers; leave it out" $one.name $one.restartPolicy) -}}
{{- else if and $one.restartPolicy (ne (toString $one.restartPolicy) "Always") -}}
  {{- fail (printf "extraInitContainers: %s has restartPolicy=%v; set it to Always for a sidecar that starts first, or leave it out" $one.name $one.restartPolicy) -}}
{{- else if and (eq $key "extraInitContainers") (not $one.restartPolicy) -}}
  {{- range list "lifecycle" "livenessProbe" "readinessProbe" "startupProbe" -}}
    {{- if hasKey $one . -}}
      {{- fail (printf "extraInitContainers: %s has %s and ends before the server starts; leave it out, or set restartPolicy=Always" $one.name .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range list "livenessProbe" "readinessProbe" "startupProbe" -}}
  {{- include "labelmint.checkHandler" (list (printf "%s: %s has %s" $key $one.name .) (get $one .) "grpc") -}}
{{- end -}}
{{- range $name, $handler := $one.lifecycle -}}
  {{- if has $name (list "postStart" "preStop") -}}
    {{- include "labelmint.checkHandler" (list (printf "%s: %s has lifecycle.%s" $key $one.name $name) $handler "sleep") -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list said handler kind), where the kind is beside those that probes and hooks share */}}
{{- define "labelmint.checkHandler" -}}
{{- $handler := index . 1 -}}{{- $kinds := list "exec" "httpGet" "tcpSocket" (index . 2) -}}
{{- if kindIs "map" $handler -}}
  {{- $given := len (pick $handler "exec" "httpGet" "tcpSocket" (index . 2)) -}}
  {{- if ne $given 1 -}}
    {{- fail (printf "%s with %d of %s; give it one" (index . 0) $given (join ", " $kinds)) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list key variables) */}}
{{- define "labelmint.checkSources" -}}
{{- $key := index . 0 -}}
{{- range index . 1 -}}
  {{- if and .value (hasKey . "valueFrom") -}}
    {{- fail (printf "%s has %s with value and valueFrom; leave one of them out" $key .name) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list key sources) */}}
{{- define "labelmint.checkFrom" -}}
{{- $key := index . 0 -}}
{{- range $i, $one := index . 1 -}}
  {{- if eq (hasKey $one "secretRef") (hasKey $one "configMapRef") -}}
    {{- fail (printf "%s[%d] needs one of secretRef and configMapRef; name one, and make two entries of two" $key $i) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list key mounts volumes) */}}
{{- define "labelmint.checkMounts" -}}
{{- $key := index . 0 -}}{{- $volumes := index . 2 -}}
{{- $paths := list -}}
{{- range index . 1 -}}
  {{- if not (has .name $volumes) -}}
    {{- fail (printf "%s has %s, which is no volume; add it to extraVolumes, or name one of: %s" $key .name (join ", " $volumes)) -}}
  {{- end -}}
  {{- if has .mountPath $paths -}}
    {{- fail (printf "%s has %s, where another volume is; give it another mountPath" $key .mountPath) -}}
  {{- end -}}
  {{- $paths = append $paths .mountPath -}}
  {{- if and .subPath .subPathExpr -}}
    {{- fail (printf "%s has %s with subPath and subPathExpr; leave one of them out" $key .name) -}}
  {{- end -}}
  {{- include "labelmint.checkPath" (list (printf "%s: subPath of %s" $key .name) .subPath) -}}
{{- end -}}
{{- end }}

{{/* (list key path) */}}
{{- define "labelmint.checkPath" -}}
{{- $path := default "" (index . 1) -}}
{{- if or (hasPrefix "/" $path) (has ".." (splitList "/" $path)) -}}
  {{- fail (printf "%s %s, which is outside of the volume; give a path in it, without / at the front and without .." (index . 0) $path) -}}
{{- end -}}
{{- end }}

{{/* (list key resources) */}}
{{- define "labelmint.checkResources" -}}
{{- $key := index . 0 -}}{{- $resources := index . 1 -}}
{{- $limits := default dict $resources.limits -}}
{{- range $name, $wanted := default dict $resources.requests -}}
  {{- $limit := get $limits $name -}}
  {{- if hasKey $limits $name -}}
    {{- if gt (include "labelmint.quantity" $wanted | float64) (include "labelmint.quantity" $limit | float64) -}}
      {{- fail (printf "%s requests.%s=%v is over limits.%s=%v; lower it or raise the limit" $key $name $wanted $name $limit) -}}
    {{- end -}}
  {{- end -}}
  {{- $shared := not (or (contains "/" $name) (hasPrefix "hugepages-" $name)) -}}
  {{- if not (or $shared (and (hasKey $limits $name) (eq (include "labelmint.quantity" $limit) (include "labelmint.quantity" $wanted)))) -}}
    {{- fail (printf "%s requests.%s needs the same limit, because it is not shared; set limits.%s=%v" $key $name $name $wanted) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{- define "labelmint.quantity" -}}
{{- $text := . -}}
{{- if not (kindIs "string" .) }}{{ $text = include "labelmint.number" . }}{{ end -}}
{{- $text = trimPrefix "+" $text -}}
{{- $number := regexFind "^([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?" $text -}}
{{- $factors := dict "" 1 "n" 1e-9 "u" 1e-6 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number $text)) -}}
{{- end }}

{{/* Of a time such as 2h30m or 1.5h. */}}
{{- define "labelmint.seconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+[hms]" . -1 -}}
  {{- $factor := get (dict "h" 3600 "m" 60 "s" 1) (regexFind "[hms]" .) -}}
  {{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) $factor) -}}
{{- end -}}
{{- $sum -}}
{{- end }}
