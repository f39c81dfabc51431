# shellcheck shell=bash
# connection: the project's S3 keys at ittybit, through the function create-connection.

connection_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] connection [--region REGION] [--bucket NAME]… [--default]

Has create-connection register the project's S3 keys at ittybit, so that results can be written back. The keys are those
that the function was deployed with (SUPABASE_S3_…: Dashboard > Storage > S3). Safe to run again: the connection that
exists is left, or replaced when the keys have changed.

  --region REGION   the project's region, where it is another than the function's SUPABASE_S3_REGION
  --bucket NAME     a bucket to try the keys in first; may be said several times
  --default         make it the connection that ittybit takes where a task names none

Reads CREATE_CONNECTION_URL and FUNCTIONS_TOKEN, which ./deploy.sh functions wrote into the environment's file.
USAGE
}

connection() {
  local fields='' buckets='' address token answer status
  while (($#)); do
    case "$1" in
      --region | --bucket)
        [[ -n "${2:-}" ]] || fail "$1 takes a value" 'See ./deploy.sh connection --help'
        if [[ "$1" == --region ]]; then
          fields="$fields, \"region\": $(json_string "$2")"
        else
          buckets="$buckets, $(json_string "$2")"
        fi
        shift 2
        ;;
      --default) fields="$fields, \"is_default\": true" && shift ;;
      -h | --help) connection_usage && return ;;
      *) fail "connection does not take '$1'" 'See ./deploy.sh connection --help' ;;
    esac
  done
  if [[ -n "$buckets" ]]; then fields="$fields, \"buckets\": [${buckets#, }]"; fi
  load_environment
  address="$(value CREATE_CONNECTION_URL)"
  token="$(value FUNCTIONS_TOKEN)"
  $DRY_RUN || is_safe_for_tokens "$address" ||
    fail 'CREATE_CONNECTION_URL must be an https address: FUNCTIONS_TOKEN travels with the call' "Mend it in $(env_file)."

  # The token is in no argument: curl reads its header from standard input.
  local words=(curl --disable --silent --show-error --max-time 60 --write-out '\n%{http_code}' --header @-)
  words+=(--header 'Content-Type: application/json' --data "{${fields#, }}" "$address")
  if $DRY_RUN; then
    say '# over standard input: Authorization: Bearer <FUNCTIONS_TOKEN>'
    run "${words[@]}"
    return
  fi
  check_tools curl
  ensure_python
  answer="$(printf 'Authorization: Bearer %s\n' "$token" | "${words[@]}" 2>&1)" ||
    fail "create-connection did not answer: ${answer%%$'\n'*}" \
      "Is CREATE_CONNECTION_URL in $(env_file) its address? ./deploy.sh functions says where it is."
  status="${answer##*$'\n'}"
  printf '%s\n' "${answer%$'\n'*}" | "$VENV/bin/python" -m deploy.connection_response "$status" "$(env_file)" || exit 2
}

# Whether nobody can listen to what is sent to an address: it is https, or on this machine or a container beside it.
is_safe_for_tokens() {
  local near='^http://(localhost|host\.docker\.internal|127(\.[0-9]+){3}|\[::1\]|[A-Za-z0-9_-]+)(:[0-9]*)?([/?#].*)?$'
  [[ "$1" == https://* || "$1" =~ $near ]]
}

# A value as JSON.
json_string() {
  local text="${1//\\/\\\\}"
  printf '"%s"' "${text//\"/\\\"}"
}
