{{/*
The CEL of tuning-policy.yaml: what an object names, as lists of {field, value}. The argument is
"object", or "oldObject" for what it named before.
*/}}

{{- define "tunesmith.policy.baseModels" -}}
[{'field': 'spec.baseModel.uri', 'value': string({{ .object }}.spec.baseModel.uri)}]
{{- end }}

{{- define "tunesmith.policy.images" -}}
(has({{ .object }}.spec.podTemplate.image)
? [{'field': 'spec.podTemplate.image', 'value': string({{ .object }}.spec.podTemplate.image)}] : [])
{{- end }}

{{- define "tunesmith.policy.env" -}}
(has({{ .object }}.spec.podTemplate.env)
? {{ .object }}.spec.podTemplate.env.map(each,
{'field': 'spec.podTemplate.env', 'value': string(each.name)}) : [])
{{- end }}

{{- define "tunesmith.policy.adapters" -}}
{{- if eq .kind "evalruns" -}}
(has({{ .object }}.spec.adapter) && has({{ .object }}.spec.adapter.uri)
? [{'field': 'spec.adapter.uri', 'value': string({{ .object }}.spec.adapter.uri)}] : []) +
(has({{ .object }}.spec.mergedModel)
? [{'field': 'spec.mergedModel.uri', 'value': string({{ .object }}.spec.mergedModel.uri)}] : [])
{{- else -}}
(has({{ .object }}.spec.adapters.named)
? {{ .object }}.spec.adapters.named.map(each,
{'field': 'spec.adapters.named[' + each.name + '].uri', 'value': string(each.uri)}) : [])
{{- end }}
{{- end }}

{{- define "tunesmith.policy.datasets" -}}
{{- if eq .kind "finetunejobs" -}}
[{'field': 'spec.dataset.uri', 'value': string(object.spec.dataset.uri)}] +
(has(object.spec.dataset.decontaminateAgainst)
? object.spec.dataset.decontaminateAgainst.map(uri,
{'field': 'spec.dataset.decontaminateAgainst', 'value': string(uri)}) : []) +
{{ end -}}
variables.suites.filter(suite, has(suite.dataset)).map(suite,
{'field': variables.suitesField + '[' + suite.name + '].dataset.uri',
'value': string(suite.dataset.uri)}) +
variables.suites.filter(suite, has(suite.promptedBase) &&
has(suite.promptedBase.examples)).map(suite,
{'field': variables.suitesField + '[' + suite.name + '].promptedBase.examples.uri',
'value': string(suite.promptedBase.examples.uri)}) +
variables.suites.filter(suite, has(suite.benchmark) && has(suite.benchmark.data)).map(suite,
{'field': variables.suitesField + '[' + suite.name + '].benchmark.data',
'value': string(suite.benchmark.data)}) +
variables.suites.filter(suite, has(suite.mtBench)).map(suite,
{'field': variables.suitesField + '[' + suite.name + '].mtBench.questions',
'value': string(suite.mtBench.questions)})
{{- end }}

{{- define "tunesmith.policy.destinations" -}}
{{- if eq .kind "finetunejobs" -}}
(has(object.spec.output)
? [{'field': 'spec.output.uri', 'value': string(object.spec.output.uri)}] : []) +
(has(object.spec.output) && has(object.spec.output.oci)
? [{'field': 'spec.output.oci.reference',
'value': 'oci://' + object.spec.output.oci.reference}] : []) +
(has(object.spec.reportTo)
? object.spec.reportTo.filter(each, has(each.uri)).map(each,
{'field': 'spec.reportTo', 'value': string(each.uri)}) : []) +
{{ else -}}
(has(object.spec.outputUri)
? [{'field': 'spec.outputUri', 'value': string(object.spec.outputUri)}] : []) +
(has(object.spec.baseResultsUri)
? [{'field': 'spec.baseResultsUri', 'value': string(object.spec.baseResultsUri)}] : []) +
{{ end -}}
variables.suites.filter(suite, has(suite.mtBench)).map(suite,
{'field': variables.suitesField + '[' + suite.name + '].mtBench.judge.url',
'value': string(suite.mtBench.judge.url)})
{{- end }}
