# shellcheck shell=bash
# What each service is given: the settings that it reads, and no key that it does not use.

# The variables that hold a secret: they go through the runtime's store.
secrets_of() {
  printf '%s\n' ITTYBIT_API_KEY SUPABASE_SECRET_KEY FUNCTIONS_SECRET FUNCTIONS_TOKEN
  case "$1" in create-connection | together) echo SUPABASE_S3_SECRET_ACCESS_KEY ;; esac
}

# The other variables that it reads and that are set; of those that it cannot do without, a dry run has a placeholder.
variables_of() {
  local name function needed=' SUPABASE_URL SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_REGION '
  local names=(THREADS SUPABASE_URL SUPABASE_PUBLIC_URL ITTYBIT_API_URL ITTYBIT_API)
  for function in $(functions_of "$1"); do
    case "$function" in
      on-upload) names+=(DRAIN_SECONDS OUTPUT_PREFIXES ITTYBIT_AUTOMATION_ID WATCH_BUCKET WATCH_PATH WATCH_TYPE) ;;
      push-back)
        names+=(DRAIN_SECONDS OUTPUT_PREFIXES DESTINATION_BUCKETS ITTYBIT_CONNECTION_ID ITTYBIT_JOB_CONNECTION)
        ;;
      create-connection) names+=(SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_REGION SUPABASE_S3_ENDPOINT) ;;
    esac
  done
  for name in "${names[@]}"; do
    if [[ -n "${!name:-}" || "$needed" == *" $name "* ]]; then echo "$name"; fi
  done | awk '!seen[$0]++'
}

# The secrets of all the named services, each once, of those that are set; in a dry run all of them.
secrets_of_all() {
  local name target
  for target in "$@"; do
    for name in $(secrets_of "$target"); do
      if [[ -n "${!name:-}" ]] || $DRY_RUN; then echo "$name"; fi
    done
  done | awk '!seen[$0]++'
}

# Stop unless the named services could start with what is set.
check_function_settings() {
  local name names=(ITTYBIT_API_KEY SUPABASE_URL SUPABASE_SECRET_KEY)
  for name in "$@"; do
    case "$name" in
      create-connection | together) names+=(SUPABASE_S3_ACCESS_KEY_ID SUPABASE_S3_SECRET_ACCESS_KEY SUPABASE_S3_REGION) ;;
    esac
  done
  check_settings "${names[@]}"
  check_values

  # Threads of an instance, and how many calls at a time a host gives it.
  THREADS="${THREADS:-16}" MAX_INSTANCES="${MAX_INSTANCES:-10}"
  for name in THREADS MAX_INSTANCES; do
    [[ "${!name}" =~ ^[1-9][0-9]{0,2}$ ]] || fail "$name is not a number from 1 to 999" "Mend it in $(env_file)."
  done
}
