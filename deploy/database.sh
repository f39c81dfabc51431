# shellcheck shell=bash
# database: installs the schema, the signing secret and the functions' addresses.

database_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] database [--to-project DIR] [--adopt copy|move]
       ./deploy.sh [options] database --share-status | --unshare-status

Applies supabase/migrations to the project's database, puts the signing secret into Vault and the functions' addresses
into ittybit.functions. Safe to run again, also while files are uploaded: it waits half a second at most for a lock,
then gives way and tries again.

  --to-project DIR   copy the migrations into DIR/supabase/migrations instead, for `supabase db push` from there; the
                     secret and the addresses follow with ./deploy.sh database as soon as DATABASE_URL is set
  --adopt copy       this database is a copy, restored or branched from another: jobs that were open when it was copied
                     are skipped (reason: copied), and from now on it calls only its own functions
  --adopt move       this database replaces the one that it was restored or upgraded from: open jobs go on, after a
                     search for them at ittybit
  --share-status     let signed-in users see the state of their own files: the view public.ittybit_files over the Data
                     API, and changes over Realtime. Does nothing else; docs/front-end.md shows how to use it
  --unshare-status   undo that

Reads, from the environment's file:
  DATABASE_URL       Dashboard > Connect: direct or a pooler's; as `postgres`
  SUPABASE_URL       the project that the database belongs to
  ON_UPLOAD_URL, PUSH_BACK_URL   ./deploy.sh functions writes them there; one is enough
  FUNCTIONS_SECRET   made on first use
  OUTPUT_PREFIXES    where results are written, comma-separated; objects there trigger no job (default: processed/)
USAGE
}

# Install, or bring up to date.
database() {
  local target='' adopt='' share='' is_new project open on_upload push_back migrations is_whole
  while (($#)); do
    case "$1" in
      --to-project)
        [[ -d "${2:-}/supabase" ]] || fail '--to-project takes a folder with supabase/ in it' 'Make one: supabase init'
        target="$2"
        shift 2
        ;;
      --adopt)
        [[ "${2:-}" == copy || "${2:-}" == move ]] || fail '--adopt takes copy or move' 'See ./deploy.sh database --help'
        adopt="$2"
        shift 2
        ;;
      --share-status | --unshare-status)
        share="${1#--}"
        shift
        ;;
      -h | --help) database_usage && return ;;
      *) fail "database does not take '$1'" 'See ./deploy.sh database --help' ;;
    esac
  done
  load_environment
  if [[ -n "$share" ]]; then
    [[ -z "$target$adopt" ]] || fail "--$share takes no other option" 'Run ./deploy.sh database with the other options first, then this.'
    connect_to_database
    share_status "$share"
    return
  fi
  check_values
  if [[ -n "$target" ]]; then
    copy_migrations "$target"
    if [[ -z "${DATABASE_URL:-}" ]]; then
      say 'Then: set DATABASE_URL, and run ./deploy.sh database for the secret and the addresses.'
      return
    fi
  fi

  connect_to_database
  check_supabase
  look_at_database
  if [[ -n "$target" ]] && $is_new; then
    say "Then, from $target: supabase db push, and after it ./deploy.sh database for the secret and the addresses."
    return
  fi
  decide_adoption
  ensure_secret FUNCTIONS_SECRET
  if [[ -z "$target" ]]; then apply_migrations; fi
  say 'Storing the secret that signs the calls in Vault'
  value FUNCTIONS_SECRET | tr -s ', ' '\n' | store_secret_in_vault
  say "Writing the functions' addresses into ittybit.functions"
  sql deploy/settings.sql "adopt=$adopt" "project=$(project_address)" "migrations=$(fingerprint)" "version=$(version)" \
    "on_upload_url=${ON_UPLOAD_URL:-}" "push_back_url=${PUSH_BACK_URL:-}" "output_prefixes=${OUTPUT_PREFIXES:-}"
}

# Stop at a database that is not a Supabase project's.
check_supabase() {
  local lacking
  lacking="$(query deploy/not_supabase.sql)"
  [[ -z "$lacking" ]] || fail "this PostgreSQL is not a Supabase project's: it lacks ${lacking//$'\n'/, }" \
    "Set DATABASE_URL to the project's own database: Dashboard > Connect."
}

# Let users see the state of their files, or stop that: share_status share-status|unshare-status.
share_status() {
  sql "deploy/${1//-/_}.sql"
  if [[ "$1" == share-status ]]; then
    say 'Signed-in users see their own files in public.ittybit_files.'
  else
    say 'Users can no longer see the state of their files.'
  fi
}

# Print the address of the project in the environment's file.
project_address() {
  local address
  address="$(value SUPABASE_URL)"
  printf '%s' "${address%/}"
}

# Print a checksum of this clone's migrations.
fingerprint() {
  cat supabase/migrations/*.sql | cksum | tr -s ' \t' '-' | cut -d - -f 1,2
}

# Set the caller's variables from the database: project, open jobs, addresses, migrations.
look_at_database() {
  is_new=true project='' open=0 on_upload='' push_back='' migrations='' is_whole=false
  local answer
  answer="$(query deploy/home.sql)"
  if [[ -n "$answer" ]]; then
    is_new=false
    {
      read -r project && read -r open && read -r on_upload && read -r push_back && read -r migrations && read -r is_whole
    } <<<"$answer"
  fi
}

# Decide what happens to the open jobs of a ledger that was set up for another project. Only a person can know that.
decide_adoption() {
  local wanted answer
  wanted="$(project_address)"
  if $is_new; then
    adopt=''
  elif [[ -z "$adopt" && "${project:-$wanted}" != "$wanted" ]] && ! $DRY_RUN; then
    say "This ledger was set up for $project, and $(env_file) is for $wanted."
    say "copy: the original stays in use and processes the $open open jobs. They are skipped here."
    say "move: this database replaces the original. Open jobs go on, after a search for them at ittybit."
    if $ASSUME_YES || [[ ! -t 0 ]]; then fail 'only you know whether this database is a copy' 'Pass --adopt copy or --adopt move.'; fi
    printf 'copy or move? An empty answer stops: ' >&2
    read -r answer
    [[ "$answer" == copy || "$answer" == move ]] || fail 'stopped, and nothing was changed' 'Answer copy or move.'
    adopt="$answer"
  elif [[ "$adopt" == copy ]]; then
    confirm "Treat this database as a copy, and skip its $open open jobs?"
  fi

  if [[ "$adopt" == copy && -n "$on_upload$push_back" ]]; then
    [[ "${ON_UPLOAD_URL:-none}" != "$on_upload" && "${PUSH_BACK_URL:-none}" != "$push_back" ]] ||
      fail "the functions' addresses in $(env_file) are those of the original's functions" \
        'Deploy functions for the copy first: ./deploy.sh --env <name> functions --to …'
  fi
}

# Apply the migrations in order, each in one transaction, unless exactly these are installed and nothing is missing.
apply_migrations() {
  local file
  if [[ "$is_whole" == true && "$migrations" == "$(fingerprint)" ]]; then
    say 'The migrations: unchanged'
    return
  fi
  for file in supabase/migrations/*.sql; do
    say "${file##*/}"
    if $DRY_RUN; then sql "$file"; else sql "$file" >/dev/null; fi
  done
}

# Copy the migrations into a Supabase project's folder: copy_migrations DIR. It asks before it overwrites one that
# differs.
copy_migrations() {
  local file to="$1/supabase/migrations" differing=()
  for file in supabase/migrations/*.sql; do
    if [[ -e "$to/${file##*/}" ]] && ! cmp -s "$file" "$to/${file##*/}"; then differing+=("${file##*/}"); fi
  done
  if ((${#differing[@]})); then
    say "$to has other versions of these files:"
    say "$(printf '  %s\n' "${differing[@]}")"
    confirm 'Overwrite these files?'
  fi
  run mkdir -p "$to"
  for file in supabase/migrations/*.sql; do
    cmp -s "$file" "$to/${file##*/}" || run cp "$file" "$to/"
  done
  say "The migrations are in $to."
  say "Then, from $1: supabase db push --include-all"
}

# Store the secret on standard input in Vault, for the database to sign with. During a rotation there are two, one a
# line: if the database signs with one of them already, that one stays; otherwise it signs with the first. Prints
# unchanged, replaced or stored.
store_secret_in_vault() {
  local given
  # shellcheck disable=SC2034 # sql() hands it to psql
  given="$(cat)"
  sql deploy/store_secret.sql
}

# Wait until all calls that were signed before now are answered: wait_for_calls [SECONDS], by default 60. Such a
# call is in pg_net's queue, is being sent, or belongs to an uncommitted transaction. Returns 1 if the time runs out.
wait_for_calls() {
  local moment left before='' ends=$((SECONDS + ${1:-60}))
  if $DRY_RUN; then
    sql deploy/calls_left.sql 'stamp=<NOW>' 'readers=-'
    return
  fi
  moment="$(sql deploy/calls_now.sql)" || exit
  while true; do
    left="$(sql deploy/calls_left.sql "stamp=${moment%%|*}" "readers=${moment#*|}")" || exit
    if [[ "$left" == 0 ]]; then return; fi
    if ((SECONDS >= ends)); then
      say "  $left calls that were signed earlier are not answered yet"
      return 1
    fi
    if [[ "$left" != "$before" ]]; then say "  waiting for the answers to $left calls that were signed earlier"; fi
    before="$left"
    sleep 1
  done
}
