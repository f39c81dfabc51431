# shellcheck shell=bash
# remove: removes everything except the files in the buckets.

remove_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] remove [--database-only]

Removes what ./deploy.sh database and ./deploy.sh functions made: the triggers on storage.objects, the schedule, the
schema ittybit with its rules and jobs, the two functions in public, Vault's secret, and the functions with their
secrets at the runtime. Asks first, says what else depends on the schema, and lists what is left. No file in a bucket is
touched. Safe to run again.

Uploads go on meanwhile: removing the triggers locks storage.objects for milliseconds, and gives way when the
lock is not free within half a second.

  --database-only   leave the functions where they run
USAGE
}

remove() {
  local with_functions=true
  while (($#)); do
    case "$1" in
      --database-only) with_functions=false ;;
      -h | --help) remove_usage && return ;;
      *) fail "remove does not take '$1'" 'See ./deploy.sh remove --help' ;;
    esac
    shift
  done
  load_environment
  connect_to_database
  if $with_functions && [[ -n "${DEPLOY_TO:-}" ]]; then
    # Missing tools and settings must be found before anything is removed.
    load_runtime
    runtime_check
    if $RUNTIME_ROLLS; then say "This will remove the functions and their secrets from $RUNTIME."; fi
  fi
  say_removal_plan
  confirm 'Remove all this?'

  say 'Removing the schedule'
  sql deploy/remove_schedule.sql
  say 'Removing the triggers'
  sql deploy/remove_triggers.sql
  say "Removing the users' view"
  sql deploy/unshare_status.sql
  say 'Removing the schema, the functions in public and the secret'
  sql deploy/remove_schema.sql
  if $with_functions; then remove_functions; fi
  say_what_is_left
}

# Print what will be removed, and which foreign objects depend on it.
say_removal_plan() {
  local answer project rules jobs queued started others
  if $DRY_RUN; then return; fi
  answer="$(query deploy/removal_plan.sql)"
  if [[ -z "$answer" ]]; then
    say 'The database has no schema ittybit.'
    return
  fi
  {
    read -r project && read -r rules && read -r jobs && read -r queued && read -r started
    others="$(cat)"
  } <<<"$answer"
  say "This will be removed from the database${project:+ of $project}:"
  say '  the triggers ittybit_object_… on storage.objects, the schedule, and the signing secret in Vault'
  say "  schema ittybit, with its rules ($rules) and jobs ($jobs)"
  if ((queued)); then say "    not started: $queued, which will not start"; fi
  if ((started)); then say "    started: $started, which ittybit finishes; nothing here will record that"; fi
  if [[ -n "$project" && "$project" != "${SUPABASE_URL%/}" ]]; then
    say "$(env_file) is for ${SUPABASE_URL:-no project}: make sure that DATABASE_URL is the one that you mean."
  fi
  if [[ -n "$others" ]]; then
    say 'These are not part of it, but depend on the schema, and are removed with it:'
    say "$(printf '%s\n' "$others" | sed 's/^/  /')"
  fi
  say 'No file in a bucket is touched.'
}

# Check that nothing is left in the database, and print what stays elsewhere.
say_what_is_left() {
  local answer left extensions
  if $DRY_RUN; then return; fi
  answer="$(query deploy/left.sql)"
  left="$(printf '%s\n' "$answer" | sed '/^extension /d')"
  extensions="$(printf '%s\n' "$answer" | sed -n 's/^extension //p')"
  [[ -z "$left" ]] || fail "this is left in the database: ${left//$'\n'/, }" 'Run the command again.'
  extensions="${extensions:-none}"
  say 'Nothing is left in the database.'
  say "Extensions stay, as others may use them: ${extensions//$'\n'/ }"
  say "At ittybit: your automations, and the connection with the project's S3 keys; delete it there, and the keys in"
  say 'Dashboard > Storage > S3 if nothing else uses them.'
  say "Here: $(env_file), with your keys in it."
}
