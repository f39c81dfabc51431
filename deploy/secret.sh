# shellcheck shell=bash
# What opens the functions: made on first use, kept in the environment's file, and never shown.

# Make FUNCTIONS_SECRET, which the database signs with, unless there is one.
ensure_functions_secret() {
  ensure FUNCTIONS_SECRET whsec_
}

# Make FUNCTIONS_TOKEN, which people and schedulers send, unless there is one.
ensure_functions_token() {
  ensure FUNCTIONS_TOKEN ''
}

# Make the named secret, with what it begins with, unless it is set.
ensure() {
  if [[ -n "${!1:-}" ]]; then return; fi
  if $DRY_RUN; then
    say "# $1 is not set: it would be made, and written into $(env_file)"
    return
  fi
  keep "$1" "$2$(random_base64)"
  say "made $1, and wrote it into $(env_file)"
}

# 32 bytes that nobody can guess, as one line of base64.
random_base64() {
  head -c 32 /dev/urandom | base64 | tr -d '\n'
}
