# shellcheck shell=bash
# Containers on any host: builds the image, and prints how to start each function.

# shellcheck source=deploy/image.sh
source deploy/image.sh

# shellcheck disable=SC2034 # for rotate.sh
RUNTIME_ROLLS=false

runtime_check() {
  IMAGE="${IMAGE:-supabase-ittybit}"
}

runtime_question() {
  if [[ "$IMAGE" == */* ]]; then
    printf 'Build the image and push it as %s?' "$IMAGE"
  else
    printf 'Build the image %s?' "$IMAGE"
  fi
}

runtime_prepare() {
  build_image "$IMAGE" "${PLATFORM:-}"
  push_image "$IMAGE"
}

# Write a function's variables for docker's --env-file: unquoted, readable by the owner only.
write_env_list() {
  local variable
  if $DRY_RUN; then return; fi
  (
    mkdir -p build
    umask 077
    rm -f "$(env_list "$1")"
    {
      printf 'FUNCTION_TARGET=%s\nFUNCTION_SOURCE=functions/%s.py\n' "${1//-/_}" "${1//-/_}"
      for variable in $(variables_of "$1") $(secrets_of "$1"); do
        if [[ -n "${!variable:-}" ]]; then printf '%s=%s\n' "$variable" "${!variable}"; fi
      done
    } >"$(env_list "$1")"
  )
}

env_list() {
  printf 'build/%s.env' "$(deployed_name "$1")"
}

runtime_deploy() {
  local port=8081 words=(docker run --detach --restart unless-stopped --name "$(deployed_name "$1")")
  words+=(--read-only --cap-drop ALL --security-opt no-new-privileges --memory 512m)
  case "$1" in push-back) port=8082 ;; create-connection) port=8083 ;; esac
  words+=(--env-file "$(env_list "$1")" --publish "$port:8080" "$IMAGE")
  write_env_list "$1"
  step "start it like this, or give a host the image and the variables in $(env_list "$1"):"
  show "${words[@]}"
}

runtime_roll() {
  write_env_list "$1"
}

runtime_log() { printf 'docker logs %s' "$(deployed_name "$1")"; }

runtime_remove() {
  local name
  for name in "${SERVICES[@]}"; do run rm -f "$(env_list "$name")"; done
}

runtime_left() {
  echo "left: the image $IMAGE, and the containers wherever you started them: docker rm --force <name>"
}
