# shellcheck shell=bash
# Cloud Functions, second generation: the same builder and the same services, through the older API.

# shellcheck source=deploy/runtimes/google.sh
source deploy/runtimes/google.sh

# shellcheck disable=SC2034 # for rotate.sh
RUNTIME_ROLLS=true

runtime_check() {
  google_check
}

runtime_question() {
  google_question "$@"
}

runtime_prepare() {
  google_enable cloudfunctions.googleapis.com run.googleapis.com cloudbuild.googleapis.com \
    artifactregistry.googleapis.com secretmanager.googleapis.com
}

runtime_store() {
  google_store "$@"
}

runtime_holds() {
  google_holds "$1"
}

runtime_deploy() {
  local words=(gcloud functions deploy "$(deployed_name "$1")" --gen2)
  words+=(--source="build/$1" --entry-point="${1//-/_}" --runtime=python313 --trigger-http)
  # pg_net cannot sign in: the function itself verifies whoever calls. An organization policy may forbid this; Cloud Run
  # has a switch that none forbids, and this command has not.
  words+=(--allow-unauthenticated)
  # As many calls at a time as there are threads; more would queue inside, unseen by the autoscaler.
  words+=(--concurrency="$THREADS" --cpu=1)
  words+=(--memory=512Mi --timeout=30s)
  # A fence around what a flood can cost.
  words+=(--max-instances="$MAX_INSTANCES")
  words+=(--set-env-vars="$(variable_flag "$1")" --set-secrets="$(secret_flag "$1")")
  [[ -z "${SERVICE_ACCOUNT:-}" ]] || words+=(--service-account="$SERVICE_ACCOUNT")
  run "${words[@]}" --region="$PLACE" --project="$PROJECT" --quiet
}

# By the service that the function is: `gcloud functions deploy` would upload and build again.
runtime_roll() {
  google_roll "$1"
}

runtime_address() {
  google_address "$1"
}

runtime_log() {
  printf 'gcloud functions logs read %s --gen2 --region=%s --project=%s' "$(deployed_name "$1")" "$PLACE" "$PROJECT"
}

runtime_remove() {
  local name
  for name in $(google_services); do
    run gcloud functions delete "$name" --gen2 --region="$PLACE" --project="$PROJECT" --quiet
  done
  google_remove_secrets
}

runtime_left() {
  google_left
}
