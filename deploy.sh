#!/usr/bin/env bash
# Deploys this clone into a Supabase project and a cloud, and removes it again. The parts are in deploy/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

for part in common settings psql stage functions database connection rule rotate remove next; do
  # shellcheck source=/dev/null
  source "deploy/$part.sh"
done

usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] <verb> [arguments]
       ./deploy.sh [options]      in a terminal: what is set up, and what comes next

Verbs
  stage [name…]   make build/<name>/ for each function (all of them by default): main.py, shared/ and
                  requirements.txt, which is what every Cloud-Functions-compatible host deploys; stage together makes
                  one folder for all three

  functions --to RUNTIME [--together | name…]
                  deploy to cloud-run, cloud-functions, knative or container, or print what a Procfile host needs
                  (process); secrets go through the runtime's own store. --together: one service, which has all
                  three behind one address, each at its path

  database        apply the migrations to DATABASE_URL, put the signing secret into Vault and the functions' addresses
                  into ittybit.functions; or --to-project DIR: copy them for `supabase db push`

  connection      register the project's S3 keys at ittybit, so that results can be written back

  rule add|list|explain|enable|disable|remove
                  manage rules (which objects are processed, and how) without writing SQL

  doctor [--json] check the whole project, change no setting, and print what is wrong and what to do, a line for each
                  check; exits with 0 when all is ok, 1 with a warning, 2 with a failure

  rotate-secret   replace FUNCTIONS_SECRET while uploads go on, without refusing a call

  remove          remove the functions and the schema, and list what stays; files in buckets are not touched

Options, before or after the verb
  --env NAME      read .env.NAME instead of .env, and add NAME to the names in the cloud; local is what make serve runs
  --dry-run       print the commands instead of running them; a value that is not set prints as <NAME>
  --yes           answer every question with yes
  -h, --help      this text; after a verb, the verb's own
  --version       the version of this clone

Functions
  on-upload           run an automation on a stored object, or make a task whose result stays at ittybit
  push-back           make a task or a run of a stored object; ittybit writes the results into a bucket
  create-connection   register the project's Supabase S3 keys at ittybit
USAGE
}

# Check the project of the environment's file (deploy/doctor/).
doctor() {
  if $DRY_RUN; then
    run make --quiet "$VENV/deploy" "VENV=$VENV"
    run "$VENV/bin/python" -m deploy.doctor "$@"
    return
  fi
  ensure_python
  load_environment
  "$VENV/bin/python" -m deploy.doctor "$@"
}

# shellcheck disable=SC2034 # for deploy/
main() {
  local verb='' rest=()
  # Options may come before or after the verb.
  while (($#)); do
    case "$1" in
      --env)
        [[ "${2:-}" =~ ^[a-z][a-z0-9-]{0,20}$ ]] || fail '--env takes a name such as staging'
        ENVIRONMENT="$2"
        shift 2
        continue
        ;;
      --dry-run) DRY_RUN=true ;;
      --yes) ASSUME_YES=true ;;
      *)
        if [[ -n "$verb" ]]; then
          rest+=("$1")
        else
          case "$1" in
            -h | --help | help) usage && return ;;
            --version) version && return ;;
            -*) fail "unknown option '$1'" ;;
            *) verb="$1" ;;
          esac
        fi
        ;;
    esac
    shift
  done
  if [[ -z "$verb" ]]; then
    [[ -t 1 ]] || { usage >&2 && exit 2; }
    next_step
    return
  fi
  set -- ${rest[@]+"${rest[@]}"}
  case "$verb" in
    stage) stage "$@" ;;
    functions) functions "$@" ;;
    database) database "$@" ;;
    connection) connection "$@" ;;
    rule) rule "$@" ;;
    doctor) doctor "$@" ;;
    rotate-secret) rotate_secret "$@" ;;
    remove) remove "$@" ;;
    *) fail "unknown verb '$verb'" ;;
  esac
}

main "$@"
