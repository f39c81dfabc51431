# shellcheck shell=bash
# database: the schema, the signing secret, and where the functions are.

database_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] database [--to-project DIR] [--adopt copy|move]
       ./deploy.sh [options] database --share-status | --unshare-status

Makes the Supabase project's database do its part: applies supabase/migrations, puts the signing secret into Vault and
the functions' addresses into ittybit.functions. Safe to run again, also while files are uploaded: where a lock would
have to be waited for it gives way after half a second and tries again.

  --to-project DIR   copy the migrations into DIR/supabase/migrations instead, for `supabase db push` from there; what
                     needs the secret is then done by ./deploy.sh database as soon as DATABASE_URL is set
  --adopt copy       this database is a copy, restored or branched from another: what was open at the copying is
                     skipped (reason: copied), and from here on it calls its own functions only
  --adopt move       it goes on in the place of the one that it was restored or upgraded from: what was open goes on,
                     looked for at ittybit first
  --share-status     let signed-in users see how far the work on their own files is: the view public.ittybit_files over
                     the Data API, and changes over Realtime. Does nothing else; docs/front-end.md shows how to use it
  --unshare-status   undo that

Reads, from the environment's file:
  DATABASE_URL       Dashboard > Connect: direct or a pooler's; as `postgres`
  SUPABASE_URL       the project, which the database is then known to belong to
  ON_UPLOAD_URL, PUSH_BACK_URL   written there by ./deploy.sh functions; one alone will do
  FUNCTIONS_SECRET   made on first use
  OUTPUT_PREFIXES    where results are written, comma-separated; what is stored there starts nothing
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
    [[ -z "$target$adopt" ]] || fail "--$share goes alone" 'Run ./deploy.sh database first, and then this.'
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
  decide_whose
  ensure_functions_secret
  if [[ -z "$target" ]]; then apply_migrations; fi
  say 'The secret that calls are signed with, into Vault'
  value FUNCTIONS_SECRET | tr -s ', ' '\n' | store_secret_in_vault
  say "The functions' addresses, into ittybit.functions"
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

# Open what users may see of the ledger, or close it again: share_status share-status|unshare-status.
share_status() {
  sql "deploy/${1//-/_}.sql"
  if [[ "$1" == share-status ]]; then
    say 'Signed-in users see their own files in public.ittybit_files.'
  else
    say 'Users see nothing of the ledger.'
  fi
}

# The project that the environment's file is for.
project_address() {
  local address
  address="$(value SUPABASE_URL)"
  printf '%s' "${address%/}"
}

# Which state of the migrations this checkout has.
fingerprint() {
  cat supabase/migrations/*.sql | cksum | tr -s ' \t' '-' | cut -d - -f 1,2
}

# Fill the caller's variables with how things stand.
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

# Settle what becomes of another project's ledger: nobody but a person can tell.
decide_whose() {
  local wanted answer
  wanted="$(project_address)"
  if $is_new; then
    adopt=''
  elif [[ -z "$adopt" && "${project:-$wanted}" != "$wanted" ]] && ! $DRY_RUN; then
    say "This ledger was set up for $project, and $(env_file) is for $wanted."
    say "Either it is a copy: then its $open open jobs are skipped, because the original does them. Or it goes on in the"
    say "original's place: then they go on, and what may have started is looked for first."
    if $ASSUME_YES || [[ ! -t 0 ]]; then fail 'only you can tell which' 'Say --adopt copy or --adopt move.'; fi
    printf 'copy, move, or nothing to stop: ' >&2
    read -r answer
    [[ "$answer" == copy || "$answer" == move ]] || fail 'stopped, and nothing was changed' 'Answer copy or move.'
    adopt="$answer"
  elif [[ "$adopt" == copy ]]; then
    confirm "Make this database a copy of its own, and skip its $open open jobs?"
  fi

  if [[ "$adopt" == copy && -n "$on_upload$push_back" ]]; then
    [[ "${ON_UPLOAD_URL:-none}" != "$on_upload" && "${PUSH_BACK_URL:-none}" != "$push_back" ]] ||
      fail "the functions' addresses in $(env_file) are those of the original's functions" \
        'Deploy functions for the copy first: ./deploy.sh --env <name> functions --to …'
  fi
}

# Apply the migrations in order, each in one transaction, unless this very state of them is there and whole.
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

# Copy the migrations into a Supabase project's folder. One that is there and differs is not written over unasked.
copy_migrations() {
  local file to="$1/supabase/migrations" differing=()
  for file in supabase/migrations/*.sql; do
    if [[ -e "$to/${file##*/}" ]] && ! cmp -s "$file" "$to/${file##*/}"; then differing+=("${file##*/}"); fi
  done
  if ((${#differing[@]})); then
    say "$to has these with another content:"
    say "$(printf '  %s\n' "${differing[@]}")"
    confirm 'Write over them?'
  fi
  run mkdir -p "$to"
  for file in supabase/migrations/*.sql; do
    cmp -s "$file" "$to/${file##*/}" || run cp "$file" "$to/"
  done
  say "The migrations are in $to."
  say "Then, from $1: supabase db push --include-all"
}
