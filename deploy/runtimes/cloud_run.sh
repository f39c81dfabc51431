# shellcheck shell=bash
# Cloud Run: a function built from its staged folder by Google's buildpacks.

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
  google_enable run.googleapis.com cloudbuild.googleapis.com artifactregistry.googleapis.com secretmanager.googleapis.com
}

runtime_store() {
  google_store "$@"
}

runtime_holds() {
  google_holds "$1"
}

runtime_deploy() {
  local words=(gcloud run deploy "$(deployed_name "$1")")
  words+=(--source="build/$1" --function="${1//-/_}" --base-image=python313)
  # pg_net cannot sign in: the function itself verifies whoever calls. Unlike allUsers, no organization policy forbids it.
  words+=(--no-invoker-iam-check)
  # As many calls at a time as there are threads; more would queue inside, unseen by the autoscaler.
  words+=(--concurrency="$THREADS" --cpu=1 --cpu-boost)
  words+=(--memory=512Mi --timeout=30s)
  # A fence around what a flood can cost.
  words+=(--max-instances="$MAX_INSTANCES")
  words+=(--set-env-vars="$(variable_flag "$1")" --set-secrets="$(secret_flag "$1")")
  [[ -z "${SERVICE_ACCOUNT:-}" ]] || words+=(--service-account="$SERVICE_ACCOUNT")
  run "${words[@]}" --region="$PLACE" --project="$PROJECT" --quiet
}

runtime_roll() {
  google_roll "$1"
}

runtime_address() {
  google_address "$1"
}

runtime_log() {
  printf 'gcloud run services logs read %s --region=%s --project=%s' "$(deployed_name "$1")" "$PLACE" "$PROJECT"
}

runtime_remove() {
  local name
  for name in $(google_services); do
    run gcloud run services delete "$name" --region="$PLACE" --project="$PROJECT" --quiet
  done
  google_remove_secrets
}

runtime_left() {
  google_left
}
