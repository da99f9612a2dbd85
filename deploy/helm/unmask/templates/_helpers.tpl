{{/* Names and labels. */}}
{{- define "unmask.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of every pod of this release; with `component`, of some. Arguments: root, component (optional). */}}
{{- define "unmask.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "unmask.labels" -}}
{{ include "unmask.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Arguments: repository, tag, digest. */}}
{{- define "unmask.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{/* The enabled classes of workers, each over workerDefaults, as YAML: name, then settings. */}}
{{- define "unmask.classes" -}}
{{- $classes := dict -}}
{{- range $name, $class := .Values.workers -}}
{{- $merged := mustMergeOverwrite (deepCopy $.Values.workerDefaults) (default (dict) $class) -}}
{{- if $merged.enabled -}}{{- $_ := set $classes $name $merged -}}{{- end -}}
{{- end -}}
{{- toYaml $classes -}}
{{- end -}}

{{/* Where workers fetch uploads from. */}}
{{- define "unmask.webUrl" -}}
{{- default (printf "http://%s-web.%s.svc:%d" (include "unmask.fullname" .) .Release.Namespace (int .Values.web.service.port)) .Values.web.url -}}
{{- end -}}

{{- define "unmask.webClaim" -}}
{{- default (printf "%s-web" (include "unmask.fullname" .)) .Values.web.persistence.existingClaim -}}
{{- end -}}

{{/* Of a pod. Arguments: root, values (with seccomp). */}}
{{- define "unmask.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
# The pod's first process is then not Unmask, and reaps decode children whose fork server died.
shareProcessNamespace: true
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int .root.Values.securityContext.uid }}
  runAsGroup: {{ int .root.Values.securityContext.gid }}
  fsGroup: {{ int .root.Values.securityContext.gid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: {{ .values.seccomp.type }}
    {{- with .values.seccomp.localhostProfile }}
    localhostProfile: {{ . }}
    {{- end }}
{{- end -}}

{{- define "unmask.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where a pod may run. Arguments: values. */}}
{{- define "unmask.placement" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Requests and limits, with the GPUs. Arguments: values. */}}
{{- define "unmask.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if int (default 0 .values.gpus) -}}
{{- $limits := default (dict) $resources.limits -}}
{{- $_ := set $limits .values.gpuResource (toString (int .values.gpus)) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
resources: {{- toYaml $resources | nindent 2 }}
{{- end -}}

{{/* Writable folders: /tmp is memory, /cache holds fetched weights and compiled networks. Arguments: values. */}}
{{- define "unmask.scratch" -}}
- name: tmp
  emptyDir: { medium: Memory, sizeLimit: {{ .values.tmpSize }} }
- name: cache
  emptyDir: { sizeLimit: {{ .values.cacheSize }} }
{{- end -}}

{{- define "unmask.scratchMounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: cache, mountPath: /cache }
{{- end -}}
