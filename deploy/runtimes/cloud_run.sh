# shellcheck shell=bash
# Cloud Run: a function built from its staged folder by Google's buildpacks.

# shellcheck source=deploy/runtimes/google.sh
source deploy/runtimes/google.sh

# shellcheck disable=SC2034 # for google.sh
GOOGLE_APIS=({run,cloudbuild,artifactregistry,secretmanager}.googleapis.com)

google_deploy() {
  words=(gcloud run deploy "$(deployed_name "$1")")
  words+=(--source="build/$1" --function="${1//-/_}" --base-image=python313 --cpu-boost)
  # pg_net cannot sign in: the function itself verifies whoever calls. Unlike allUsers, no organization policy forbids it.
  words+=(--no-invoker-iam-check)
}

google_delete() {
  run gcloud run services delete "$1" --region="$PLACE" --project="$PROJECT" --quiet
}

runtime_log() {
  printf 'gcloud run services logs read %s --region=%s --project=%s' "$(deployed_name "$1")" "$PLACE" "$PROJECT"
}
