# shellcheck shell=bash
# connection: registers the project's S3 keys at ittybit, through the function create-connection.

connection_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] connection [--region REGION] [--bucket NAME]… [--default]

Calls create-connection, which registers the project's S3 keys at ittybit, so that results can be written back. The keys
are those that the function was deployed with (SUPABASE_S3_…: Dashboard > Storage > S3). Safe to run again: an existing
connection stays, or is replaced when the keys have changed.

  --region REGION   the project's region, if it differs from the function's SUPABASE_S3_REGION
  --bucket NAME     a bucket to try the keys in first; may be given several times
  --default         make it ittybit's default, for tasks that name no connection

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
    fail 'CREATE_CONNECTION_URL must be an https address: the call carries FUNCTIONS_TOKEN' "Correct it in $(env_file)."

  # The token is never an argument: curl reads its header from standard input.
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
      "Check CREATE_CONNECTION_URL in $(env_file): it must be the address that ./deploy.sh functions printed."
  status="${answer##*$'\n'}"
  printf '%s\n' "${answer%$'\n'*}" | "$VENV/bin/python" -m deploy.connection_response "$status" "$(env_file)" || exit 2
}

# Whether a token may be sent to an address: it is https, or leads to this machine or to a container on it.
is_safe_for_tokens() {
  local near='^http://(localhost|host\.docker\.internal|127(\.[0-9]+){3}|\[::1\]|[A-Za-z0-9_-]+)(:[0-9]*)?([/?#].*)?$'
  [[ "$1" == https://* || "$1" =~ $near ]]
}

# Print a value as a JSON string.
json_string() {
  local text="${1//\\/\\\\}"
  printf '"%s"' "${text//\"/\\\"}"
}
