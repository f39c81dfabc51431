# shellcheck shell=bash
# What each service gets: only the settings that it reads and the keys that it uses. And the secrets that callers of the
# functions need: made on first use, kept in the environment's file, and never shown.

# Print the secrets of these services. They go through the runtime's store.
secrets_of() {
  printf '%s\n' ITTYBIT_API_KEY SUPABASE_SECRET_KEY FUNCTIONS_SECRET FUNCTIONS_TOKEN
  if has_create_connection "$@"; then echo SUPABASE_S3_SECRET_ACCESS_KEY; fi
}

# Print the secrets of these services that are set; in a dry run all of them.
set_secrets_of() {
  local name
  for name in $(secrets_of "$@"); do
    if [[ -n "${!name:-}" ]] || $DRY_RUN; then echo "$name"; fi
  done
}

has_create_connection() {
  [[ " $* " == *' create-connection '* || " $* " == *' together '* ]]
}

# Print the other variables that a service reads and that are set, and those that it requires.
variables_of() {
  local name function needed=' SUPABASE_URL SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_REGION '
  local names=(THREADS SUPABASE_URL SUPABASE_PUBLIC_URL ITTYBIT_API_URL ITTYBIT_API)
  for function in $(functions_of "$1"); do
    case "$function" in
      on-upload) names+=(DRAIN_SECONDS OUTPUT_PREFIXES ITTYBIT_AUTOMATION_ID WATCH_BUCKET WATCH_PATH WATCH_TYPE) ;;
      push-back)
        names+=(DRAIN_SECONDS OUTPUT_PREFIXES DESTINATION_BUCKETS ITTYBIT_CONNECTION_ID ITTYBIT_JOB_CONNECTION)
        ;;
      create-connection)
        names+=(SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_REGION SUPABASE_S3_ENDPOINT DESTINATION_BUCKETS)
        ;;
    esac
  done
  for name in "${names[@]}"; do
    if [[ -n "${!name:-}" || "$needed" == *" $name "* ]]; then echo "$name"; fi
  done | awk '!seen[$0]++'
}

# Stop unless these services could start with the settings.
check_function_settings() {
  local name names=(ITTYBIT_API_KEY SUPABASE_URL SUPABASE_SECRET_KEY)
  if has_create_connection "$@"; then
    names+=(SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_SECRET_ACCESS_KEY SUPABASE_S3_REGION)
  fi
  check_settings "${names[@]}"
  check_values

  # THREADS is the number of threads of an instance, and of calls that a host sends it at a time.
  THREADS="${THREADS:-16}" MAX_INSTANCES="${MAX_INSTANCES:-10}"
  for name in THREADS MAX_INSTANCES; do
    [[ "${!name}" =~ ^[1-9][0-9]{0,2}$ ]] || fail "$name is not a number from 1 to 999" "Correct it in $(env_file)."
  done
}

# Make the named secret unless it is set: FUNCTIONS_SECRET, which the database signs with, or FUNCTIONS_TOKEN, which
# people and schedulers send.
ensure_secret() {
  local start=''
  if [[ -n "${!1:-}" ]]; then return; fi
  if $DRY_RUN; then
    say "# $1 is not set: it would be made, and written into $(env_file)"
    return
  fi
  if [[ "$1" == FUNCTIONS_SECRET ]]; then start=whsec_; fi
  keep "$1" "$start$(random_base64)"
  say "made $1, and wrote it into $(env_file)"
}

# Print 32 random bytes as one line of base64.
random_base64() {
  head -c 32 /dev/urandom | base64 | tr -d '\n'
}
