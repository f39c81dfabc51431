# shellcheck shell=bash
# ./deploy.sh without a verb, in a terminal: prints what is set up and the next step. It only reads.

next_step() {
  local deploy="./deploy.sh${ENVIRONMENT:+ --env $ENVIRONMENT}" file name missing=''
  # shellcheck disable=SC2034 # look_at_database sets them
  local is_new project open on_upload push_back migrations is_whole
  file="$(env_file)"
  if [[ ! -f "$file" ]]; then
    say_next "there is no $file" "$(how_to_make_env_file)"
    return
  fi
  load_environment
  for name in ITTYBIT_API_KEY SUPABASE_URL SUPABASE_SECRET_KEY; do
    [[ -n "${!name:-}" ]] || missing="$missing${missing:+, }$name"
  done
  if [[ -n "$missing" ]]; then
    say_next "$file is not filled in" "set $missing there; docs/getting-started.md says where to find each"
    return
  fi
  check_values
  if [[ -z "${ON_UPLOAD_URL:-}${PUSH_BACK_URL:-}" ]]; then
    case "${DEPLOY_TO:-}" in
      '') say_next 'the functions are not deployed' "$deploy functions --to RUNTIME; $deploy functions --help lists the runtimes" ;;
      container | process)
        say_next "$file has no addresses of the functions" \
          "start what '$deploy functions' prints, and put the addresses there: ON_UPLOAD_URL, PUSH_BACK_URL, CREATE_CONNECTION_URL" ;;
      *) say_next "the functions are not deployed to $DEPLOY_TO" "$deploy functions" ;;
    esac
    return
  fi
  if [[ -z "${DATABASE_URL:-}" ]]; then
    say_next "$file has no DATABASE_URL" "set it there (Dashboard > Connect); then $deploy database"
    return
  fi

  connect_to_database
  look_at_database
  if $is_new; then
    say_next 'the database side is not installed' "$deploy database"
  elif [[ "$project" != "$(project_address)" ]]; then
    say_next "the database side is set up for ${project:-no project}, and $file is for $(project_address)" "$deploy database"
  elif [[ "$is_whole" != true || "$migrations" != "$(fingerprint)" ]]; then
    say_next 'the database side is incomplete, or of another version than this folder' "$deploy database"
  elif [[ "${ON_UPLOAD_URL:-$on_upload}" != "$on_upload" || "${PUSH_BACK_URL:-$push_back}" != "$push_back" ]]; then
    say_next "the database calls other addresses than those in $file" "$deploy database"
  elif [[ -z "$(query deploy/rule_names.sql)" ]]; then
    say_next 'there is no rule, so no upload is processed' \
      "$deploy rule add; if results go into a bucket, run $deploy connection first"
  else
    say_next 'all is set up' "upload a file; $deploy doctor checks the project"
  fi
}

# say_next STATE ACTION
say_next() {
  printf '%s\nNext: %s\nAll verbs: ./deploy.sh --help\n' "$1" "$2"
}
