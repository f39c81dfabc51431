# shellcheck shell=bash
# Cloud Functions, second generation: Cloud Run's builder and services through the older API.

# shellcheck source=deploy/runtimes/google.sh
source deploy/runtimes/google.sh

# shellcheck disable=SC2034 # for google.sh
GOOGLE_APIS=({cloudfunctions,run,cloudbuild,artifactregistry,secretmanager}.googleapis.com)

google_deploy() {
  words=(gcloud functions deploy "$(deployed_name "$1")" --gen2)
  words+=(--source="build/$1" --entry-point="${1//-/_}" --runtime=python313 --trigger-http)
  # pg_net cannot sign in: the function itself verifies whoever calls. An organization policy may forbid this; Cloud Run
  # has a switch that none forbids, and this command has not.
  words+=(--allow-unauthenticated)
}

google_delete() {
  run gcloud functions delete "$1" --gen2 --region="$PLACE" --project="$PROJECT" --quiet
}

runtime_log() {
  printf 'gcloud functions logs read %s --gen2 --region=%s --project=%s' "$(deployed_name "$1")" "$PLACE" "$PROJECT"
}
