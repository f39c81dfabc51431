# shellcheck shell=bash
# functions: deploys the staged functions to a runtime, and removes them from it.
#
# A runtime is a file in deploy/runtimes/ with these bash functions; it may omit those with a default below. Everything
# that changes something goes through run(). NAME is a service: one function, or together, which is all of them behind
# one address, each at its path.
#   runtime_check NAME…     stop unless its tools and settings are there; changes nothing
#   runtime_question NAME…  print the question to ask before a change; nothing if nothing will be changed
#   runtime_prepare         make what all functions need: APIs, an image
#   runtime_store SECRET…   store these variables
#   runtime_holds SECRET    print where the runtime's store has the secret; nothing if it has none
#   runtime_deploy NAME     deploy a service, or replace it without an interruption for callers
#   runtime_roll NAME       restart a service with the stored FUNCTIONS_SECRET and no other change; with
#                           RUNTIME_ROLLS=false the person restarts it
#   runtime_address NAME    print its address; nothing if it is not known
#   runtime_log NAME        print the command that shows its log
#   runtime_remove          remove all functions and their secrets
#   runtime_left            print what is still there after that, a line each

# shellcheck disable=SC2034 # for rotate.sh
RUNTIME_ROLLS=true
runtime_check() { :; }
runtime_question() { :; }
runtime_prepare() { :; }
runtime_store() { :; }
runtime_holds() { :; }
runtime_roll() { :; }
runtime_address() { :; }
runtime_remove() { :; }

functions_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] functions [--to RUNTIME] [--together | name…]

Stages the functions, puts their secrets into the runtime's store, deploys, and checks that each refuses a caller who
is not authenticated (401). Without names, all three. Run again, it replaces what is there and stores only what has
changed.

  --together      all three as one service, in one process, each at its path: /on-upload, /push-back,
                  /create-connection. The environment's file then has DEPLOY_TOGETHER=true, for the next deployment and
                  rotate-secret. To have three services again, remove it and the addresses from there, and deploy.

Runtimes, with the variables that each reads from the environment's file. Without --to, DEPLOY_TO there selects one; the
first deployment writes it.
  cloud-run         gcloud run deploy --function        GOOGLE_CLOUD_PROJECT, REGION
  cloud-functions   gcloud functions deploy --gen2      GOOGLE_CLOUD_PROJECT, REGION
  knative           docker and kubectl                  IMAGE, KUBE_CONTEXT (kubectl's), KUBE_NAMESPACE (default)
  container         docker; you start it yourself       IMAGE (supabase-ittybit), PLATFORM (docker's)
  process           Procfile hosts: prints what to set

What is set, and why
  no invoker check  the database's pg_net has no cloud identity, so the host must accept every caller: each function
                    verifies a signature (FUNCTIONS_SECRET) or a token (FUNCTIONS_TOKEN)
  concurrency       THREADS (16), the threads of an instance: more would queue inside it, unseen by the autoscaler
  CPU               1, required for more than one call at a time; with a boost while it starts
  memory            512 MiB, the minimum of Cloud Run's second generation; it uses about 60
  time-out          30 s; a call ends by itself within 8
  instances         0 to MAX_INSTANCES (10): a limit on what a flood of uploads can cost
  SERVICE_ACCOUNT   the account that the functions run as at Google (the project's default one); it may read their
                    secrets

FUNCTIONS_SECRET and FUNCTIONS_TOKEN are made when they are missing. Of three services only create-connection gets the
S3 keys. The addresses are written into the environment's file, as ON_UPLOAD_URL, PUSH_BACK_URL and CREATE_CONNECTION_URL.
USAGE
}

# deploy.sh functions
functions() {
  local name question to='' together=''
  while (($#)); do
    case "$1" in
      --to) to="${2:-}" && shift $(($# > 1 ? 2 : 1)) ;;
      --to=*) to="${1#--to=}" && shift ;;
      --together) together=true && shift ;;
      -h | --help) functions_usage && return ;;
      -*) fail "unknown option '$1'" 'See ./deploy.sh functions --help' ;;
      *) break ;;
    esac
  done
  check_functions "$@"
  load_environment
  DEPLOY_TOGETHER="${together:-${DEPLOY_TOGETHER:-}}"
  load_runtime "$to"
  if [[ -n "$DEPLOY_TOGETHER" ]] && (($#)); then
    fail "$* cannot be deployed alone: the functions are deployed together" \
      "Name no function. Or, for three services, pass no --together, and delete DEPLOY_TOGETHER and the addresses from $(env_file)."
  fi
  (($#)) || set -- "${FUNCTIONS[@]}"
  # shellcheck disable=SC2046 # names of services
  set -- $(services_of "$@")

  check_function_settings "$@"
  runtime_check "$@"
  check_source "$@"
  question="$(runtime_question "$@")"
  [[ -z "$question" ]] || confirm "$question"

  ensure_credentials
  runtime_prepare
  # shellcheck disable=SC2046 # names of variables
  runtime_store $(set_secrets_of "$@")
  for name in "$@"; do
    if $RUNTIME_ROLLS; then
      step "$name: deploying as $(deployed_name "$name")"
    else
      step "$name: how to start it"
    fi
    runtime_deploy "$name"
  done
  for name in "$@"; do check_deployed "$name"; done
  keep_runtime
  say_what_is_next
}

# Load the runtime of this name, or the one that DEPLOY_TO names: load_runtime [NAME]
load_runtime() {
  RUNTIME="${1:-${DEPLOY_TO:-}}"
  case "$RUNTIME" in
    cloud-run | cloud-functions | knative | container | process) ;;
    '') fail 'no runtime is given' "Pass --to cloud-run (or cloud-functions, knative, container, process), or set DEPLOY_TO in $(env_file)." ;;
    *) fail "no runtime '$RUNTIME'" 'There are: cloud-run, cloud-functions, knative, container, process' ;;
  esac
  [[ "${DEPLOY_TOGETHER:-true}" == true ]] ||
    fail 'DEPLOY_TOGETHER is not true' "Set it to true, or take it out of $(env_file) to have three services."
  # shellcheck source=/dev/null
  case "$RUNTIME" in
    cloud-*) source deploy/runtimes/google.sh ;;
    *) source "deploy/runtimes/$RUNTIME.sh" ;;
  esac
}

# Write DEPLOY_TO, where there is none, and DEPLOY_TOGETHER into the environment's file, for the other verbs.
keep_runtime() {
  if $DRY_RUN; then return; fi
  if [[ -z "${DEPLOY_TO:-}" ]]; then keep DEPLOY_TO "$RUNTIME"; fi
  if [[ -n "${DEPLOY_TOGETHER:-}" ]]; then keep DEPLOY_TOGETHER true; fi
}

# Make FUNCTIONS_SECRET and FUNCTIONS_TOKEN if they are missing here. Stop if the runtime has one already: it may come
# from a colleague's clone, and with a new one the functions would refuse the database.
ensure_credentials() {
  local name place
  for name in FUNCTIONS_SECRET FUNCTIONS_TOKEN; do
    if [[ -n "${!name:-}" ]] || $DRY_RUN; then continue; fi
    place="$(runtime_holds "$name")"
    [[ -z "$place" ]] || fail "$(env_file) has no $name, and $RUNTIME has one already" \
      "Copy it into $(env_file) from there: $place. To start over, delete it there."
  done
  ensure_secret FUNCTIONS_SECRET
  ensure_secret FUNCTIONS_TOKEN
}

# Stage, and stop if Python cannot compile a file: a host's build takes minutes to find that.
check_source() {
  check_tools python3
  if $DRY_RUN; then
    run ./deploy.sh stage "$@"
  else
    stage "$@" >&2
  fi
  # No .pyc files in the staged folders: the host makes its own.
  run env PYTHONPYCACHEPREFIX=build/.pycache python3 -m compileall -q -f "${@/#/build/}"
}

# Check that each function of a service answers, and write its address into the environment's file.
check_deployed() {
  local name address path=''
  address="$(runtime_address "$1")" || fail "$1 has no address" 'Fix what the host reports above.'
  if [[ -z "$address" ]]; then return; fi
  for name in $(functions_of "$1"); do
    if [[ "$1" == together ]]; then path="/$name"; fi
    check_answer "$1" "$name" "${address%/}$path"
  done
}

# Check that a function answers a call without authentication with 401: check_answer SERVICE NAME ADDRESS. A host may
# need a while to accept callers.
check_answer() {
  local service="$1" name="$2" address="$3" status='' try
  step "$name: checking that it answers 401 to a call without authentication"
  if $DRY_RUN; then
    call_function 30 '{}' "$address"
    return
  fi
  for try in 1 2 3 4 5 6; do
    status="$(call_function 30 '{}' "$address" || true)"
    if [[ "$status" == 401 ]]; then break; fi
    ((try == 6)) || sleep "${DEPLOY_PAUSE:-5}"
  done
  case "$status" in
    401) ;;
    403) fail "$name is up, but its host refuses callers before the function sees them (403)" \
      'pg_net has no cloud identity, so the host must accept every caller. If an organization policy forbids that, ask for an exception.' ;;
    3??) fail "$name answers with a redirect ($status) at $address" 'pg_net would follow it, and the call would be lost: deploy where the function answers without a redirect.' ;;
    000) fail "$name cannot be reached at $address" "Check that the name resolves and that the internet can reach the host. Its log: $(runtime_log "$service")" ;;
    *) fail "$name answers $status, not 401, at $address" "Its log: $(runtime_log "$service")" ;;
  esac
  keep_address "$name" "$address"
}

# Call a function and print the HTTP status, or 000 without an answer: call_function SECONDS BODY ADDRESS [OPTION…].
# Redirects are not followed. In a dry run it prints the command.
call_function() {
  local words=(curl --disable --silent --output /dev/null --write-out '%{http_code}' --max-time "$1")
  words+=("${@:4}" --header 'Content-Type: application/json' --data "$2" "$3")
  if $DRY_RUN; then show "${words[@]}"; else "${words[@]}"; fi
}

# Print the variable for a function's address: ON_UPLOAD_URL, PUSH_BACK_URL, CREATE_CONNECTION_URL.
address_variable() {
  printf '%s_URL' "$(printf '%s' "$1" | tr 'a-z-' 'A-Z_')"
}

# Write a function's address into the environment's file. An address that a person wrote there, such as a custom domain,
# stays.
keep_address() {
  local variable
  variable="$(address_variable "$1")"
  if [[ -z "${!variable:-}" ]]; then
    keep "$variable" "$2"
    say "$1: answers at $2 ($variable in $(env_file))"
  elif [[ "${!variable}" == "$2" ]]; then
    say "$1: answers at $2"
  else
    say "$1: answers at $2, but $(env_file) has $variable=${!variable}, which stays. If calls should go to the new address, change it there"
  fi
}

say_what_is_next() {
  local option="${ENVIRONMENT:+--env $ENVIRONMENT }"
  if $DRY_RUN; then return; fi
  say 'Next:'
  if [[ -z "${ON_UPLOAD_URL:-}" || -z "${PUSH_BACK_URL:-}" ]]; then
    say "  when they run, write their addresses into $(env_file): ON_UPLOAD_URL, PUSH_BACK_URL, CREATE_CONNECTION_URL"
    if [[ -n "$DEPLOY_TOGETHER" ]]; then
      say '  each with its path: https://…/on-upload, https://…/push-back, https://…/create-connection'
    fi
  fi
  say "  ./deploy.sh ${option}database      installs the schema, the signing secret and these addresses"
  say "  ./deploy.sh ${option}connection    lets ittybit write into the project's storage"
}

# Remove the functions and their secrets from the runtime that DEPLOY_TO names, and print what is left there. The caller
# has asked for confirmation. It may run again when everything is removed.
remove_functions() {
  if [[ -z "${DEPLOY_TO:-}" ]]; then
    say "functions: $(env_file) names no runtime (DEPLOY_TO), so none were removed"
    return
  fi
  load_runtime
  runtime_check
  if $RUNTIME_ROLLS; then step "functions: removing from $RUNTIME"; fi
  runtime_remove
  if $DRY_RUN; then return; fi
  runtime_left
}
