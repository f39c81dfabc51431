#!/usr/bin/env bash
# Stages and deploys the functions; the parts are in deploy/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly FUNCTIONS=(on-upload push-back create-connection)

usage() {
  cat <<'USAGE'
Usage: ./deploy.sh <verb> [arguments]

Verbs
  stage [name…]   make build/<name>/ for each function (all of them by default): main.py, shared/ and
                  requirements.txt, which is what every Cloud-Functions-compatible host deploys

Functions
  on-upload           a stored object: run an ittybit automation on it
  push-back           a stored object: make a task, its output written back into the bucket
  create-connection   register the project's Supabase S3 keys at ittybit

A staged folder deploys as it is, for example to Cloud Run functions:
  ./deploy.sh stage on-upload
  gcloud run deploy on-upload --source build/on-upload --function on_upload --base-image python313
USAGE
}

# Say what is wrong and how to go on, and stop.
fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  printf '  %s\n' "${2:-See ./deploy.sh --help}" >&2
  exit 2
}

# shellcheck source=deploy/stage.sh
source deploy/stage.sh

case "${1:-}" in
  stage) shift && stage "$@" ;;
  -h | --help | help) usage ;;
  '') usage >&2 && exit 2 ;;
  *) fail "unknown verb '$1'" ;;
esac
