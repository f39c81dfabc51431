# shellcheck shell=bash
# The secret that the database signs its calls with, in Vault.

# Make the secret on standard input the one that the database signs with; several, one a line, while one replaces
# another: if the database signs with any of them already, that one stays, else the first is taken.
# Says unchanged, replaced or stored.
store_secret_in_vault() {
  local given
  connect_to_database
  # shellcheck disable=SC2034 # sql() hands it to psql
  given="$(cat)"
  sql deploy/store_secret.sql
}

# Wait until no call is on its way that was signed before now: none in pg_net's queue or in its hands, none in a
# transaction that has still to commit. `wait_for_calls [seconds]`; fails by its status when the time is over (60 s).
wait_for_calls() {
  local moment left before='' ends=$((SECONDS + ${1:-60}))
  connect_to_database
  if $DRY_RUN; then
    sql deploy/calls_left.sql 'stamp=<NOW>' 'readers=-'
    return
  fi
  moment="$(sql deploy/calls_now.sql)" || exit
  while true; do
    left="$(sql deploy/calls_left.sql "stamp=${moment%%|*}" "readers=${moment#*|}")" || exit
    if [[ "$left" == 0 ]]; then return; fi
    if ((SECONDS >= ends)); then
      say "  $left calls that were signed before are still on their way"
      return 1
    fi
    if [[ "$left" != "$before" ]]; then say "  waiting for $left calls that were signed before"; fi
    before="$left"
    sleep 1
  done
}
