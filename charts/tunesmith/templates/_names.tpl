{{- define "tunesmith.labels" -}}
app.kubernetes.io/name: tunesmith
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tunesmith.selector" -}}
app.kubernetes.io/name: tunesmith
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* An image as this cluster pulls it; given the root and the name of one of the images. */ -}}
{{- define "tunesmith.image" -}}
{{- $images := index . 0 -}}
{{- with $images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ index $images (index . 1) }}
{{- end }}

{{- define "tunesmith.operator" -}}
{{ .Release.Name }}-operator
{{- end }}

{{- /* The operator, as the subject of a binding. */ -}}
{{- define "tunesmith.subjects" -}}
- {kind: ServiceAccount, name: {{ include "tunesmith.operator" . }}, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- /* The pods of Jobs: all of ours that do not serve. */ -}}
{{- define "tunesmith.trainers" -}}
matchLabels: {app.kubernetes.io/managed-by: tunesmith}
matchExpressions:
  - {key: tunesmith.dev/serves, operator: DoesNotExist}
{{- end }}

{{- /* The operator's pods, as the peer of a NetworkPolicy. */ -}}
{{- define "tunesmith.operatorPeer" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
  podSelector:
    matchLabels: {{- include "tunesmith.selector" . | nindent 6 }}
{{- end }}
