# shellcheck shell=bash
# rotate-secret: replaces FUNCTIONS_SECRET; no call is refused meanwhile.
#
# While FUNCTIONS_SECRET in the environment's file holds two secrets, the new one first, a rotation is unfinished, and
# the next run continues it. Each step may be repeated.

rotate_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] rotate-secret [--to RUNTIME]

Replaces FUNCTIONS_SECRET, which the database signs its calls with, while uploads go on:
  1  a new secret is made; the functions are restarted with both, until each accepts the new one
  2  the database signs with the new one; all calls that were signed before are answered
  3  the functions are restarted with the new one alone

If it is interrupted, run it again. It needs psql and DATABASE_URL, and restarts the functions whose addresses are
in the environment's file. On container and process you restart them yourself: it says when; then run it again.
USAGE
}

# deploy.sh rotate-secret
rotate_secret() {
  local name new targets to=''
  while (($#)); do
    case "$1" in
      --to) to="${2:-}" && shift $(($# > 1 ? 2 : 1)) ;;
      --to=*) to="${1#--to=}" && shift ;;
      -h | --help) rotate_usage && return ;;
      *) fail "unknown argument '$1'" 'See ./deploy.sh rotate-secret --help' ;;
    esac
  done
  load_environment
  load_runtime "$to"
  targets="$(deployed_functions)"
  # shellcheck disable=SC2086 # names of functions
  check_rotation $targets
  confirm 'Replace FUNCTIONS_SECRET? The functions are restarted twice; no call is lost.'

  if [[ "${FUNCTIONS_SECRET:-}" == *,* ]]; then
    say "continuing the rotation that $(env_file) shows as unfinished"
  elif $DRY_RUN; then
    step "FUNCTIONS_SECRET=<new>,<old> into $(env_file)"
  else
    keep FUNCTIONS_SECRET "whsec_$(random_base64),$FUNCTIONS_SECRET"
  fi
  new="${FUNCTIONS_SECRET:-}"
  new="${new%%,*}"

  step '1 of 3: the functions accept both the new secret and the old one'
  roll "$targets"
  for name in $targets; do wait_for_answer "$name" 422 "$new"; done

  step '2 of 3: the database signs with the new secret'
  printf '%s\n' "$new" | store_secret_in_vault
  wait_for_calls || fail 'calls signed with the old secret are not answered yet' 'Run the command again: it goes on from here.'

  step '3 of 3: the functions drop the old secret'
  drop_old_secret "$targets" "$new"
}

# Print the functions whose addresses are in the environment's file.
deployed_functions() {
  local name variable
  for name in "${FUNCTIONS[@]}"; do
    variable="$(address_variable "$name")"
    if [[ -n "${!variable:-}" ]] || $DRY_RUN; then echo "$name"; fi
  done
}

# Stop unless everything that the rotation needs is there. It runs before any change.
check_rotation() {
  (($#)) || fail "no function's address is known" "Deploy first (./deploy.sh functions), or set ON_UPLOAD_URL and PUSH_BACK_URL in $(env_file)."
  check_settings FUNCTIONS_SECRET DATABASE_URL
  check_function_settings on-upload push-back
  check_tools curl
  connect_to_database
  runtime_check "$@"
}

# Restart these functions with the present FUNCTIONS_SECRET.
roll() {
  local name
  runtime_store FUNCTIONS_SECRET
  # shellcheck disable=SC2086 # names of functions
  for name in $(services_of $1); do
    if $RUNTIME_ROLLS; then step "$name: restarting"; fi
    runtime_roll "$name"
  done
}

# Leave only the new secret at the functions and in the file: drop_old_secret FUNCTIONS NEW. If the runtime restarts the
# functions, the file is changed last: until then the command can be run again.
drop_old_secret() {
  local name targets="$1" old="${FUNCTIONS_SECRET:-}"
  old="${old##*,}"
  if ! $RUNTIME_ROLLS; then
    $DRY_RUN || keep FUNCTIONS_SECRET "$2"
    roll "$targets"
    step "FUNCTIONS_SECRET in $(env_file) is the new one alone: restart the functions with it when it suits you"
    return
  fi
  if ! $DRY_RUN; then export FUNCTIONS_SECRET="$2"; fi
  roll "$targets"
  for name in $targets; do
    wait_for_answer "$name" 422 "$2"
    wait_for_answer "$name" 401 "$old"
  done
  if $DRY_RUN; then
    step "FUNCTIONS_SECRET=<new> into $(env_file)"
  else
    keep FUNCTIONS_SECRET "$2"
    say 'done: the functions refuse the old secret'
  fi
}

# Wait until three calls in a row, signed with this secret, are answered with this status: wait_for_answer NAME STATUS
# SECRET. 422 means that the secret is accepted, because no function takes the body []; 401 means that it is refused.
# Three in a row, because an old instance may answer for a moment.
wait_for_answer() {
  local name="$1" wanted="$2" variable headers status='' try in_a_row=0
  if $DRY_RUN; then return; fi
  variable="$(address_variable "$name")"
  headers="$(printf '%s' "$3" | "$VENV/bin/python" deploy/sign.py '[]')"
  for ((try = 1; try <= 30; try++)); do
    status="$(printf '%s\n' "$headers" | call_function 8 '[]' "${!variable}" --header @- || true)"
    if [[ "$status" == "$wanted" ]]; then ((++in_a_row)); else in_a_row=0; fi
    if ((in_a_row == 3)); then return; fi
    if [[ "$status" != "$wanted" ]]; then
      $RUNTIME_ROLLS || break
      sleep "${DEPLOY_PAUSE:-2}"
    fi
  done
  if ! $RUNTIME_ROLLS; then
    fail "$name does not accept the new secret yet ($status)" \
      "Restart it with FUNCTIONS_SECRET as it now is in $(env_file), and run the command again: it goes on from here."
  fi
  fail "$name answers $status to a call signed with the secret, not $wanted" \
    "Run the command again: it goes on from here. Its log: $(runtime_log "$(services_of "$name")")"
}
