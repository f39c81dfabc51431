# shellcheck shell=bash
# Knative Serving on any Kubernetes: the container's image, one service a function, one Secret for all.
# It uses manifests and kubectl: kn has no flag for a read-only disk or a time-out.

# shellcheck source=deploy/image.sh
source deploy/image.sh

runtime_check() {
  check_tools kubectl curl
  check_settings IMAGE KUBE_CONTEXT
  IMAGE="$(value IMAGE)"
  KUBE=(kubectl --context="$(value KUBE_CONTEXT)" --namespace="${KUBE_NAMESPACE:-default}")
  if $DRY_RUN; then return; fi
  [[ "$IMAGE" == */* ]] || fail 'IMAGE names no registry' 'The cluster has to pull it: IMAGE=ghcr.io/<you>/supabase-ittybit'
  "${KUBE[@]}" get services.serving.knative.dev --output=name >/dev/null ||
    fail 'the Knative services of the cluster cannot be listed' 'Correct KUBE_CONTEXT and KUBE_NAMESPACE, or install Knative Serving.'
}

runtime_question() {
  printf 'Push %s, and deploy %s into the cluster %s?' "$IMAGE" "$*" "$(value KUBE_CONTEXT)"
}

# The services name the image by its digest: Knative does not notice new content under the same tag.
runtime_prepare() {
  build_image "$IMAGE" "${PLATFORM:-linux/amd64}"
  push_image "$IMAGE"
  if $DRY_RUN; then
    DIGEST="$IMAGE@<DIGEST>"
  else
    DIGEST="$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$IMAGE" |
      grep -F "$(repository)@" | head -n 1)" || fail "$IMAGE has no digest" 'docker push has to succeed first.'
  fi
}

# Print the image's name without its tag. A registry's port is not a tag.
repository() {
  if [[ "${IMAGE##*/}" == *:* ]]; then printf '%s' "${IMAGE%:*}"; else printf '%s' "$IMAGE"; fi
}

secret_name() {
  printf 'supabase-ittybit%s' "${ENVIRONMENT:+-$ENVIRONMENT}"
}

# Store these secrets in the one Secret. Each has its own field manager, so that the other keys stay. A client-side
# apply would keep a copy in an annotation, so this is server-side. An unchanged Secret keeps its version.
runtime_store() {
  local name
  for name in "$@"; do
    step "$name: in the Secret $(secret_name)"
    if $DRY_RUN; then
      printf '# (on stdin: the Secret with this key alone)\n'
      apply "deploy.sh-$name"
    else
      secret_manifest "$name" | apply "deploy.sh-$name"
    fi
  done
  SECRETS_VERSION='<VERSION>'
  if $DRY_RUN; then return; fi
  SECRETS_VERSION="$("${KUBE[@]}" get secret "$(secret_name)" --output='jsonpath={.metadata.resourceVersion}')" ||
    fail "the version of $(secret_name) is not known" 'Fix what kubectl reports above.'
}

runtime_holds() {
  local held
  held="$("${KUBE[@]}" get secret "$(secret_name)" --ignore-not-found --output="jsonpath={.data.$1}")" || return 0
  if [[ -n "$held" ]]; then printf 'the key %s of the Secret %s (base64)' "$1" "$(secret_name)"; fi
}

secret_manifest() {
  printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\ntype: Opaque\ndata:\n  %s: %s\n' \
    "$(secret_name)" "$1" "$(printf '%s' "${!1}" | base64 | tr -d '\n')"
}

apply() {
  run "${KUBE[@]}" apply --server-side --force-conflicts --field-manager="$1" --filename=-
}

runtime_deploy() {
  if $DRY_RUN; then
    apply deploy.sh
    echo '# (on stdin:)'
    service_manifest "$1" | sed 's/^/#   /'
  else
    service_manifest "$1" | apply deploy.sh
  fi
  wait_until_ready "$1"
}

service_manifest() {
  local name
  cat <<MANIFEST
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: $(deployed_name "$1")
spec:
  template:
    metadata:
      annotations:
        # A limit on what a flood of uploads can cost.
        autoscaling.knative.dev/max-scale: "$MAX_INSTANCES"
        # Another version of the Secret makes another revision, which takes over when it is ready.
        supabase-ittybit/secrets: "$SECRETS_VERSION"
    spec:
      # As many calls at a time as there are threads; more would queue inside, unseen by the autoscaler.
      containerConcurrency: $THREADS
      timeoutSeconds: 30
      containers:
        - image: $DIGEST
          ports:
            - containerPort: 8080
          resources:
            requests: {cpu: 100m, memory: 128Mi}
            limits: {cpu: "1", memory: 512Mi}
          securityContext:
            runAsNonRoot: true
            readOnlyRootFilesystem: true
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
            seccompProfile: {type: RuntimeDefault}
          env:
            - {name: FUNCTION_TARGET, value: ${1//-/_}}
            - {name: FUNCTION_SOURCE, value: functions/${1//-/_}.py}
MANIFEST
  # A JSON string is valid YAML.
  for name in $(variables_of "$1"); do
    printf '            - {name: %s, value: %s}\n' "$name" "$(json_string "$(value "$name")")"
  done
  for name in $(secrets_of "$1"); do
    printf '            - {name: %s, valueFrom: {secretKeyRef: {name: %s, key: %s}}}\n' "$name" "$(secret_name)" "$name"
  done
}

wait_until_ready() {
  run "${KUBE[@]}" wait --for=condition=Ready --timeout=300s "services.serving.knative.dev/$(deployed_name "$1")"
}

runtime_roll() {
  local patch
  patch="$(printf '{"spec":{"template":{"metadata":{"annotations":{"supabase-ittybit/secrets":"%s"}}}}}' "$SECRETS_VERSION")"
  run "${KUBE[@]}" patch "services.serving.knative.dev/$(deployed_name "$1")" --type=merge --patch="$patch"
  wait_until_ready "$1"
}

runtime_address() {
  if $DRY_RUN; then
    printf '<%s>' "$(address_variable "$1")"
  else
    "${KUBE[@]}" get "services.serving.knative.dev/$(deployed_name "$1")" --output='jsonpath={.status.url}'
  fi
}

runtime_log() {
  printf '%s logs --selector=serving.knative.dev/service=%s --container=user-container' "${KUBE[*]}" "$(deployed_name "$1")"
}

runtime_remove() {
  local name
  for name in "${SERVICES[@]}"; do
    run "${KUBE[@]}" delete "services.serving.knative.dev/$(deployed_name "$name")" --ignore-not-found
  done
  run "${KUBE[@]}" delete "secret/$(secret_name)" --ignore-not-found
}

runtime_left() {
  echo "left: the image $IMAGE in its registry"
}
