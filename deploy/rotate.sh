# shellcheck shell=bash
# rotate-secret: another FUNCTIONS_SECRET, and no call refused on the way.
#
# The environment's file says how far it is: while FUNCTIONS_SECRET holds two, new first, the rotation is under way, and
# running it again goes on from there. Each step may be repeated.

rotate_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] rotate-secret [--to RUNTIME]

Replaces FUNCTIONS_SECRET, which the database signs its calls with, while uploads go on:
  1  a new secret; the functions are restarted with both, and are seen to accept the new one
  2  the database signs with the new one; the calls signed before have all been answered
  3  the functions are restarted with the new one alone

Interrupted anywhere, run the same again. Needs psql and DATABASE_URL. The functions are those that the environment's
file has the addresses of. On container and process you restart them yourself: it says when, and goes on when it is run
again.
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
    say "going on with the rotation that $(env_file) says was begun"
  elif $DRY_RUN; then
    step "FUNCTIONS_SECRET=<new>,<old> into $(env_file)"
  else
    keep FUNCTIONS_SECRET "whsec_$(random_base64),$FUNCTIONS_SECRET"
  fi
  new="${FUNCTIONS_SECRET:-}"
  new="${new%%,*}"

  step '1 of 3: the functions accept the new secret beside the old'
  roll "$targets"
  for name in $targets; do wait_for_answer "$name" 422 "$new"; done

  step '2 of 3: the database signs with the new secret'
  printf '%s\n' "$new" | store_secret_in_vault
  wait_for_calls || fail 'calls signed with the old secret are still on their way' 'Run the same again: it goes on from here.'

  step '3 of 3: the functions drop the old secret'
  drop_old_secret "$targets" "$new"
}

# The functions that the environment's file has addresses of: those that are called.
deployed_functions() {
  local name variable
  for name in "${FUNCTIONS[@]}"; do
    variable="$(address_variable "$name")"
    if [[ -n "${!variable:-}" ]] || $DRY_RUN; then echo "$name"; fi
  done
}

# Stop unless all that the rotation needs is there, before anything is changed.
check_rotation() {
  (($#)) || fail "no function's address is known" "Deploy first (./deploy.sh functions), or set ON_UPLOAD_URL and PUSH_BACK_URL in $(env_file)."
  check_settings FUNCTIONS_SECRET DATABASE_URL
  check_function_settings on-upload push-back
  check_tools curl python3 psql
  runtime_check "$@"
}

# Restart the functions with what FUNCTIONS_SECRET is now.
roll() {
  local name
  runtime_store FUNCTIONS_SECRET
  # shellcheck disable=SC2086 # names of functions
  for name in $(services_of $1); do
    if $RUNTIME_ROLLS; then step "$name: restarting"; fi
    runtime_roll "$name"
  done
}

# The new secret alone, at the functions and in the file. The file is last: until then the same can be run again.
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
    say 'done: the old secret opens nothing any more'
  fi
}

# Wait until calls signed with a secret are answered so, three in a row: 422 is accepted (their body, [], means
# nothing to any function), 401 is refused. Behind a host's address an instance of before may answer for a moment.
wait_for_answer() {
  local name="$1" wanted="$2" variable headers status='' try in_a_row=0
  if $DRY_RUN; then return; fi
  variable="$(address_variable "$name")"
  headers="$(printf '%s' "$3" | python3 deploy/sign.py '[]')"
  for ((try = 1; try <= 30; try++)); do
    status="$(ask_with "$headers" "${!variable}")"
    if [[ "$status" == "$wanted" ]]; then ((++in_a_row)); else in_a_row=0; fi
    if ((in_a_row == 3)); then return; fi
    if [[ "$status" != "$wanted" ]]; then
      $RUNTIME_ROLLS || break
      sleep "${DEPLOY_PAUSE:-2}"
    fi
  done
  if ! $RUNTIME_ROLLS; then
    fail "$name does not accept the new secret yet ($status)" \
      "Restart it with FUNCTIONS_SECRET as it now is in $(env_file), and run the same again: it goes on from here."
  fi
  fail "$name answers $status to a call signed with the secret, not $wanted" \
    "Run the same again: it goes on from here. What it says: $(runtime_log "$(services_of "$name")")"
}

# The status that a call with these headers is answered with; 000 where nobody answers. No redirect is followed.
ask_with() {
  printf '%s\n' "$1" | curl --disable --silent --output /dev/null --write-out '%{http_code}' --max-time 8 \
    --header @- --header 'Content-Type: application/json' --data '[]' "$2" || true
}
