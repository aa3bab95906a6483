{{/* Peers and their addresses. */}}

{{/* (list key peers) */}}
{{- define "labelmint.checkPeers" -}}
{{- $key := index . 0 -}}
{{- range $i, $peer := index . 1 -}}
  {{- if not $peer -}}
    {{- fail (printf "%s[%d] is empty; give podSelector, namespaceSelector or ipBlock, such as podSelector={} for the namespace's pods" $key $i) -}}
  {{- else if and (hasKey $peer "ipBlock") (gt (len $peer) 1) -}}
    {{- fail (printf "%s[%d] has ipBlock beside a selector; make two peers of them" $key $i) -}}
  {{- end -}}
  {{- with $peer.ipBlock -}}
    {{- include "labelmint.checkBlock" (list (printf "%s[%d].ipBlock" $key $i) .) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* (list key block): an API server wants each exception within the block, and smaller. */}}
{{- define "labelmint.checkBlock" -}}
{{- $key := index . 0 -}}{{- $block := index . 1 -}}
{{- $outer := include "labelmint.groups" (list (printf "%s.cidr" $key) $block.cidr) | fromYamlArray -}}
{{- $length := regexFind "[0-9]+$" $block.cidr | int -}}
{{- range $i, $cidr := $block.except -}}
  {{- $inner := include "labelmint.groups" (list (printf "%s.except[%d]" $key $i) $cidr) | fromYamlArray -}}
  {{- $within := and (eq (len $inner) (len $outer)) (gt (regexFind "[0-9]+$" $cidr | int) $length) -}}
  {{- range $at := ternary (until (len $outer)) list $within -}}
    {{- $free := max 0 (sub 16 (max 0 (sub $length (mul 16 $at)))) -}}{{/* bits of the group after the prefix */}}
    {{- $size := index (list 1 2 4 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536) (int $free) -}}
    {{- if ne (div (index $inner $at | int) $size) (div (index $outer $at | int) $size) -}}
      {{- $within = false -}}
    {{- end -}}
  {{- end -}}
  {{- if not $within -}}
    {{- fail (printf "%s.except[%d]=%s is not a part of cidr=%s; give addresses within it, or leave it out" $key $i $cidr $block.cidr) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* An address in groups of 16 bits, 2 of IPv4 and 8 of IPv6, as a list in YAML: (list key cidr) */}}
{{- define "labelmint.groups" -}}
{{- $address := regexReplaceAll "/.*" (index . 1) "" -}}
{{- $last := regexFind "[0-9]+[.][0-9.]+$" $address -}}
{{- $ipv4 := list -}}
{{- if regexMatch "^[0-9]+([.][0-9]+){3}$" $last -}}
  {{- $b := splitList "." $last -}}
  {{- range $at := list 0 2 -}}
    {{- $ipv4 = append $ipv4 (add (mul 256 (index $b $at | int)) (index $b (add1 $at) | int)) -}}
  {{- end -}}
{{- end -}}
{{- $groups := list -}}
{{- if not (contains ":" $address) -}}
  {{- $groups = $ipv4 -}}
{{- else -}}
  {{- $ends := list -}}
  {{- $text := trimSuffix $last $address -}}
  {{- if and $last (not (hasSuffix "::" $text)) }}{{ $text = trimSuffix ":" $text }}{{ end -}}
  {{- range splitList "::" $text -}}
    {{- $end := list -}}
    {{- range ternary (splitList ":" .) list (ne . "") -}}
      {{- if regexMatch "^[0-9a-fA-F]{1,4}$" . -}}
        {{- $end = append $end (printf "0x%s" . | int64) -}}
      {{- else -}}
        {{- $end = append $end -1 -}}
      {{- end -}}
    {{- end -}}
    {{- $ends = append $ends $end -}}
  {{- end -}}
  {{- $given := len $ipv4 -}}
  {{- range $ends }}{{ $given = add $given (len .) }}{{ end -}}
  {{- if eq (len $ends) 1 -}}
    {{- $groups = concat (first $ends) $ipv4 -}}
  {{- else if and (eq (len $ends) 2) (lt (int $given) 8) -}}
    {{- $groups = first $ends -}}
    {{- range until (sub 8 $given | int) }}{{ $groups = append $groups 0 }}{{ end -}}
    {{- $groups = concat $groups (last $ends) $ipv4 -}}
  {{- end -}}
  {{- if or (ne (len $groups) 8) (has -1 $groups) -}}
    {{- fail (printf "%s=%s is no address; write all 8 groups of it, or :: once in place of zeros, such as fd00::/8" (index . 0) (index . 1)) -}}
  {{- end -}}
{{- end -}}
{{- toJson $groups -}}
{{- end }}
