{{/* What the chart's own clients share: where the server is, and how they may call it. */}}
{{- define "labelmint.clientEnvironment" -}}
- {name: LABELMINT_TARGET, value: "dns:///{{ include "labelmint.fullname" . }}-headless.{{ .Release.Namespace }}.svc:{{ int .Values.service.port }}"}
- {name: HOME, value: /tmp}
{{- with .Values.client.tokenSecret }}
{{- if .name }}
- name: LABELMINT_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "labelmint.clientArguments" -}}
{{- $arguments := list -}}
{{- if ne .Values.tls.mode "none" -}}
{{- $arguments = list "--authorities" "/authorities/ca.crt" -}}
{{- if .Values.client.tlsSecret -}}
{{- $arguments = concat $arguments (list "--certificate" "/client-tls/tls.crt" "--private-key" "/client-tls/tls.key") -}}
{{- end -}}
{{- end -}}
{{- toJson $arguments -}}
{{- end }}

{{- define "labelmint.clientMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if ne .Values.tls.mode "none" }}
- {name: authorities, mountPath: /authorities, readOnly: true}
{{- if .Values.client.tlsSecret }}
- {name: client-tls, mountPath: /client-tls, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* Of the server's secret only the authority: its key is not a client's business. */}}
{{- define "labelmint.clientVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if ne .Values.tls.mode "none" }}
- name: authorities
  secret:
    secretName: {{ include "labelmint.tlsSecret" . | quote }}
    items: [{key: ca.crt, path: ca.crt}]
{{- if .Values.client.tlsSecret }}
- name: client-tls
  secret: {secretName: {{ .Values.client.tlsSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
