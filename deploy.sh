#!/usr/bin/env bash
# From a clone to a running project, and out again; the parts are in deploy/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=deploy/common.sh
source deploy/common.sh
# shellcheck source=deploy/settings.sh
source deploy/settings.sh
# shellcheck source=deploy/secret.sh
source deploy/secret.sh
# shellcheck source=deploy/psql.sh
source deploy/psql.sh
# shellcheck source=deploy/vault.sh
source deploy/vault.sh
# shellcheck source=deploy/stage.sh
source deploy/stage.sh
# shellcheck source=deploy/functions.sh
source deploy/functions.sh
# shellcheck source=deploy/database.sh
source deploy/database.sh
# shellcheck source=deploy/connection.sh
source deploy/connection.sh
# shellcheck source=deploy/rule.sh
source deploy/rule.sh
# shellcheck source=deploy/doctor.sh
source deploy/doctor.sh
# shellcheck source=deploy/rotate.sh
source deploy/rotate.sh
# shellcheck source=deploy/remove.sh
source deploy/remove.sh
# shellcheck source=deploy/next.sh
source deploy/next.sh

usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] <verb> [arguments]
       ./deploy.sh [options]      in a terminal: how far this folder is, and what comes next

Verbs
  stage [name…]   make build/<name>/ for each function (all of them by default): main.py, shared/ and
                  requirements.txt, which is what every Cloud-Functions-compatible host deploys; stage together makes
                  one folder for all three

  functions --to RUNTIME [--together | name…]
                  deploy to cloud-run, cloud-functions, knative or container, or print what a Procfile host needs
                  (process); secrets go through the runtime's own store. --together: one service, which has all
                  three behind one address, each at its path

  database        apply the migrations to DATABASE_URL, put the signing secret into Vault and the functions' addresses
                  into ittybit.settings; or --to-project DIR: copy them for `supabase db push`

  connection      register the project's S3 keys at ittybit, so that results can be written back

  rule add|list|explain|enable|disable|remove
                  what becomes of which object, without writing SQL

  doctor [--json] look at the whole project, change nothing, and say what is wrong and what to do: a line for each
                  check; ends with 0 when all is ok, 1 with a warning, 2 with a failure

  rotate-secret   replace FUNCTIONS_SECRET while uploads go on: no call is refused at any moment

  remove          take all of it out again, and list what is left; no file in a bucket is touched

Options, in front of the verb or behind it
  --env NAME      read .env.NAME instead of .env, and keep the names in the cloud apart; local is what make serve runs
  --dry-run       print what would run, and run nothing; what is not set prints as <NAME>
  --yes           answer every question with yes
  -h, --help      this text; after a verb, the verb's own
  --version       the version of this clone

Functions
  on-upload           a stored object: run an ittybit automation on it
  push-back           a stored object: make a task, its output written back into the bucket
  create-connection   register the project's Supabase S3 keys at ittybit
USAGE
}

main() {
  local verb='' rest=()
  # The options mean the same in front of the verb and behind it.
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
