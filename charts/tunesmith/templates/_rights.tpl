{{- /*
What the operator may do in the namespaces it looks after. Every rule is used by
operator/tunesmith/kube/cluster.py or by the watches in main.py. There is no right to read Secrets:
pods get them by reference, and the kubelet says when one is missing.
*/ -}}
{{- define "tunesmith.rights" -}}
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs, evalruns, adapterdeployments]
  verbs: [get, list, watch]
- apiGroups: [tunesmith.dev]
  # Those whose time to live is over.
  resources: [finetunejobs]
  verbs: [delete]
- apiGroups: [tunesmith.dev]
  # delete: a job that is suspended gives back the GPU of its EvalRun.
  resources: [evalruns]
  verbs: [create, delete]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/status, evalruns/status, adapterdeployments/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  # patch: spec.suspend.
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  # patch: an annotation on serving pods makes the kubelet bring them new adapters at once.
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
{{- if .Values.serving.prometheusAddress }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, create, patch, delete]
{{- end }}
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
