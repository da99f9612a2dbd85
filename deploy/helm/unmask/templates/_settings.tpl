{{/* Settings of Unmask as environment variables. */}}

{{/* Kafka, as a user of its own where one is named. Arguments: root, user, passwordSecret, certSecret. */}}
{{- define "unmask.kafkaEnv" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $own := default (dict) .own -}}
{{- $user := default $kafka.user $own.user -}}
{{- $password := ternary $own.passwordSecret $kafka.passwordSecret (not (empty (dig "passwordSecret" "name" "" $own))) -}}
- name: UNMASK_KAFKA
  value: {{ $kafka.bootstrap | quote }}
- name: UNMASK_KAFKA_SECURITY
  value: {{ $kafka.security }}
{{- if hasPrefix "SASL" $kafka.security }}
- name: UNMASK_KAFKA_MECHANISM
  value: {{ $kafka.mechanism }}
- name: UNMASK_KAFKA_USER
  value: {{ $user | quote }}
- name: UNMASK_KAFKA_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $password.name }}, key: {{ $password.key }} } }
{{- end }}
{{- if and (hasSuffix "SSL" $kafka.security) $kafka.caSecret.name }}
- name: UNMASK_KAFKA_CA
  value: /etc/unmask/kafka-ca/ca.crt
{{- end }}
{{- if (include "unmask.kafkaCert" . | fromYaml).name }}
- name: UNMASK_KAFKA_CERT
  value: /etc/unmask/kafka-cert/user.crt
- name: UNMASK_KAFKA_KEY
  value: /etc/unmask/kafka-cert/user.key
{{- end }}
{{- end -}}

{{/* The secret with the client's certificate, as YAML. Arguments: root, own. */}}
{{- define "unmask.kafkaCert" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $own := default (dict) .own -}}
{{- if hasSuffix "SSL" $kafka.security -}}
{{- toYaml (ternary $own.certSecret $kafka.certSecret (not (empty (dig "certSecret" "name" "" $own)))) -}}
{{- else -}}
name: ""
{{- end -}}
{{- end -}}

{{/* Volumes with certificates. Arguments: root, own. */}}
{{- define "unmask.kafkaVolumes" -}}
{{- $kafka := .root.Values.kafka -}}
{{- if and (hasSuffix "SSL" $kafka.security) $kafka.caSecret.name }}
- name: kafka-ca
  secret: { secretName: {{ $kafka.caSecret.name }}, items: [{ key: {{ $kafka.caSecret.key }}, path: ca.crt }] }
{{- end }}
{{- $cert := include "unmask.kafkaCert" . | fromYaml }}
{{- if $cert.name }}
- name: kafka-cert
  secret:
    secretName: {{ $cert.name }}
    items: [{ key: {{ $cert.certKey }}, path: user.crt }, { key: {{ $cert.keyKey }}, path: user.key }]
{{- end }}
{{- end -}}

{{- define "unmask.kafkaMounts" -}}
{{- $kafka := .root.Values.kafka -}}
{{- if and (hasSuffix "SSL" $kafka.security) $kafka.caSecret.name }}
- { name: kafka-ca, mountPath: /etc/unmask/kafka-ca, readOnly: true }
{{- end }}
{{- if (include "unmask.kafkaCert" . | fromYaml).name }}
- { name: kafka-cert, mountPath: /etc/unmask/kafka-cert, readOnly: true }
{{- end }}
{{- end -}}

{{- define "unmask.redisEnv" -}}
- name: UNMASK_REDIS
{{- if .Values.redis.urlSecret.name }}
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.urlSecret.name }}, key: {{ .Values.redis.urlSecret.key }} } }
{{- else }}
  value: {{ .Values.redis.url | quote }}
{{- end }}
{{- end -}}

{{- define "unmask.registryEnv" -}}
{{- if .Values.registry.uri }}
- name: UNMASK_REGISTRY
  value: {{ .Values.registry.uri | quote }}
{{- else if .Values.registry.existingClaim }}
- name: UNMASK_REGISTRY
  value: {{ .Values.registry.mountPath }}
{{- end }}
{{- end -}}

{{/* Volumes of videos and of the registry. Arguments: root, readOnly (of the registry), videos. */}}
{{- define "unmask.sharedVolumes" -}}
{{- if and .videos .root.Values.videos.existingClaim }}
- name: videos
  persistentVolumeClaim: { claimName: {{ .root.Values.videos.existingClaim }}, readOnly: true }
{{- end }}
{{- if .root.Values.registry.existingClaim }}
- name: registry
  persistentVolumeClaim: { claimName: {{ .root.Values.registry.existingClaim }}, readOnly: {{ .readOnly }} }
{{- end }}
{{- end -}}

{{- define "unmask.sharedMounts" -}}
{{- if and .videos .root.Values.videos.existingClaim }}
- { name: videos, mountPath: {{ .root.Values.videos.mountPath }}, readOnly: true }
{{- end }}
{{- if .root.Values.registry.existingClaim }}
- { name: registry, mountPath: {{ .root.Values.registry.mountPath }}, readOnly: {{ .readOnly }} }
{{- end }}
{{- end -}}

{{/* Further settings of values. Arguments: values. */}}
{{- define "unmask.extraEnv" -}}
{{- range $name, $value := .values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "unmask.envFrom" -}}
{{- with .values.envFrom }}
envFrom:
  {{- range . }}
  - secretRef: { name: {{ . }} }
  {{- end }}
{{- end }}
{{- end -}}
