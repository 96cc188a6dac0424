{{- define "mlforge.name" -}}
{{- if contains "mlforge" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-mlforge" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mlforge.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "mlforge.name" .) }}
{{- end }}

{{/* Labels that select pods: of the release, and with a component, of one of its parts. */}}
{{- define "mlforge.selector" -}}
app.kubernetes.io/name: mlforge
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mlforge.labels" -}}
{{ include "mlforge.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version }}
{{- end }}

{{/* What all pods have in common: no root, no capability, a root file system that cannot be written to. */}}
{{- define "mlforge.pod" -}}
serviceAccountName: {{ include "mlforge.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - name: redis-url
    secret: {secretName: {{ .Values.secrets.redisUrl }}, defaultMode: 0440}
  {{- with .Values.secrets.features }}
  - name: features
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- with .Values.secrets.keys }}
  - name: keys
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- with .Values.project.configMap }}
  - name: project
    configMap: {name: {{ . }}}
  {{- end }}
  {{- with .Values.store.claim }}
  - name: store
    persistentVolumeClaim: {claimName: {{ . }}}
  {{- end }}
  {{- with .Values.drops.claim }}
  - name: drops
    persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
{{- end }}

{{/* Where the pods of one of the parts may run, by its own values. */}}
{{- define "mlforge.placement" -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $ $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* How often a process that starts is asked, in place of how long it may take: every so many seconds. */}}
{{- define "mlforge.tries" -}}
{{ divf .seconds .every | ceil | int }}
{{- end }}

{{/* What all containers have in common, with the values of their own. */}}
{{- define "mlforge.container" -}}
{{- $context := .context -}}
image: {{ printf "%s:%s" $context.Values.image.repository ($context.Values.image.tag | default $context.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $context.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: REDIS_URL_FILE, value: /run/secrets/redis-url/redis-url}
  - {name: MLFORGE_DEFINITIONS, value: {{ $context.Values.project.definitions | quote }}}
  {{- with $context.Values.project.profile }}
  - {name: MLFORGE_PROFILE, value: {{ . | quote }}}
  {{- end }}
  {{- with .own.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources: {{- toYaml .own.resources | nindent 2 }}
{{- with $context.Values.secrets.environment }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: redis-url, mountPath: /run/secrets/redis-url, readOnly: true}
  {{- if $context.Values.secrets.features }}
  - {name: features, mountPath: /run/secrets/features, readOnly: true}
  {{- end }}
  {{- if $context.Values.secrets.keys }}
  - {name: keys, mountPath: /run/secrets/keys, readOnly: true}
  {{- end }}
  {{- if $context.Values.project.configMap }}
  - {name: project, mountPath: /project, readOnly: true}
  {{- end }}
  {{- if $context.Values.store.claim }}
  - {name: store, mountPath: /project/feature_store}
  {{- end }}
  {{- if $context.Values.drops.claim }}
  - {name: drops, mountPath: /project/drops, readOnly: true}
  {{- end }}
{{- end }}
