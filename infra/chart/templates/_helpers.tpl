{{- define "darkroom.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "darkroom.labels" -}}
app.kubernetes.io/name: darkroom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What selects the pods of a component: (list . "api"). */}}
{{- define "darkroom.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: darkroom
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "darkroom.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{/* Environment variables of every process, then those of one: (list . settings). */}}
{{- define "darkroom.environment" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
envFrom:
  - secretRef: { name: {{ $values.existingSecret | quote }} }
env:
  {{- if $values.valkey.enabled }}
  - name: REDIS_PASSWORD
    valueFrom: { secretKeyRef: { name: {{ $values.existingSecret | quote }}, key: VALKEY_PASSWORD } }
  - name: REDIS_URL
    value: redis://{{ include "darkroom.name" $root }}-valkey:6379/0
  {{- end }}
  - { name: S3_BUCKET, value: {{ $values.s3.bucket | quote }} }
  - { name: S3_REGION, value: {{ $values.s3.region | quote }} }
  {{- with $values.s3.endpointUrl }}
  - { name: S3_ENDPOINT_URL, value: {{ . | quote }} }
  {{- end }}
  {{- with $values.s3.publicEndpointUrl }}
  - { name: S3_PUBLIC_ENDPOINT_URL, value: {{ . | quote }} }
  {{- end }}
  {{- if $values.catalog }}
  - { name: DARKROOM_CATALOG, value: /config/catalog.toml }
  {{- end }}
  {{- if $values.metrics.enabled }}
  - { name: DARKROOM_METRICS_PORT, value: {{ $values.metrics.port | quote }} }
  - { name: DARKROOM_METRICS_HOST, value: "0.0.0.0" }
  {{- end }}
  {{- if and $values.metrics.enabled (hasKey $values.settings "DARKROOM_METRICS_PORT") }}{{ fail "settings: DARKROOM_METRICS_PORT is metrics.port" }}{{ end }}
  {{- range $name, $value := merge (dict) (index . 1) $values.settings }}
  - { name: {{ $name }}, value: {{ $value | quote }} }
  {{- end }}
{{- end -}}

{{- define "darkroom.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
# A service called "darkroom" would set DARKROOM_PORT.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with (index . 1).nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "darkroom.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "darkroom.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { {{ include "darkroom.selector" . | replace "\n" ", " }} } }
{{- end -}}
