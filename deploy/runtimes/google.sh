# shellcheck shell=bash
# Cloud Run and Cloud Functions, second generation: the same builder and the same services, through two APIs.
# Flags as in https://cloud.google.com/sdk/gcloud/reference; none asks (--quiet), because deploy.sh has asked.

GOOGLE_APIS=({run,cloudbuild,artifactregistry,secretmanager}.googleapis.com)
if [[ "$RUNTIME" == cloud-run ]]; then
  GOOGLE_SERVICES=(run services)
  GENERATION=''
else
  GOOGLE_APIS=(cloudfunctions.googleapis.com "${GOOGLE_APIS[@]}")
  GOOGLE_SERVICES=(functions)
  GENERATION=--gen2
fi
READER=roles/secretmanager.secretAccessor

# Set the functions' project and region. Every command names them, so gcloud's own configuration does not matter. Set the
# account that the functions run as: SERVICE_ACCOUNT, or the project's default account of Compute Engine.
runtime_check() {
  local account number
  check_tools gcloud curl
  check_settings GOOGLE_CLOUD_PROJECT REGION
  PROJECT="$(value GOOGLE_CLOUD_PROJECT)"
  PLACE="$(value REGION)"
  ACCOUNT="${SERVICE_ACCOUNT:-<SERVICE_ACCOUNT>}"
  if $DRY_RUN; then return; fi
  account="$(gcloud auth list --filter=status:ACTIVE --format='value(account)')" || account=''
  [[ -n "$account" ]] || fail 'gcloud is not signed in' 'Run: gcloud auth login'
  number="$(gcloud projects describe "$PROJECT" --format='value(projectNumber)')" ||
    fail "$account cannot see the project $PROJECT" "Correct GOOGLE_CLOUD_PROJECT in $(env_file), or use another account: gcloud auth login"
  ACCOUNT="${SERVICE_ACCOUNT:-$number-compute@developer.gserviceaccount.com}"
}

runtime_question() {
  local names=''
  local name
  for name in "$@"; do names="$names${names:+, }$(deployed_name "$name")"; done
  printf 'Deploy %s to %s in project %s, %s? Builds, instances and secrets cost there.' "$names" "$RUNTIME" "$PROJECT" "$PLACE"
}

# Enable the APIs that are needed and not enabled yet.
runtime_prepare() {
  local api enabled='' missing=()
  if ! $DRY_RUN; then
    enabled="$(gcloud services list --enabled --project="$PROJECT" --format='value(config.name)')" ||
      fail "the APIs of project $PROJECT cannot be listed" 'You need roles/serviceusage.serviceUsageViewer.'
  fi
  for api in "${GOOGLE_APIS[@]}"; do
    [[ $'\n'"$enabled"$'\n' == *$'\n'"$api"$'\n'* ]] || missing+=("$api")
  done
  if ((${#missing[@]})); then
    step 'enabling the APIs'
    run gcloud services enable "${missing[@]}" --project="$PROJECT" --quiet
  fi
}

# Print a secret's name in Secret Manager; each --env has its own.
secret_id() {
  printf 'supabase-ittybit-%s%s' "$(printf '%s' "$1" | tr 'A-Z_' 'a-z-')" "${ENVIRONMENT:+-$ENVIRONMENT}"
}

# Store these secrets, and let the functions' account read them. Sets SECRET_VERSIONS, a line NAME=id:version for each:
# a revision names the versions that it runs with, so that all its instances have the same.
runtime_store() {
  local name id stored='' version='<VERSION>'
  SECRET_VERSIONS=''
  if $DRY_RUN; then
    step 'each secret, unless it is stored already; if its value has changed, a version is added'
  else
    stored="$(gcloud secrets list --project="$PROJECT" --format='value(name.basename())')" ||
      fail "the secrets of project $PROJECT cannot be listed" 'You need roles/secretmanager.viewer.'
  fi
  for name in "$@"; do
    id="$(secret_id "$name")"
    step "$name: in Secret Manager as $id"
    if [[ $'\n'"$stored"$'\n' == *$'\n'"$id"$'\n'* ]]; then
      store_version "$name" "$id"
      may_read "$id" || let_read "$id"
      version="$(gcloud secrets versions describe latest --secret="$id" --project="$PROJECT" --format='value(name)')" ||
        fail "the newest version of $id cannot be read" 'You need roles/secretmanager.viewer.'
    else
      run_with "$name" gcloud secrets create "$id" --replication-policy=automatic --data-file=- \
        --project="$PROJECT" --quiet
      let_read "$id"
      $DRY_RUN || version=1
    fi
    SECRET_VERSIONS="$SECRET_VERSIONS$name=$id:${version##*/}"$'\n'
  done
}

# Print the command that shows a secret, if it is stored.
runtime_holds() {
  if is_there secrets describe "$(secret_id "$1")"; then
    printf 'gcloud secrets versions access latest --secret=%s --project=%s' "$(secret_id "$1")" "$PROJECT"
  fi
}

# Make the value of a variable the newest version of a stored secret, unless it is already: store_version NAME ID.
store_version() {
  local newest
  if newest="$(gcloud secrets versions access latest --secret="$2" --project="$PROJECT" 2>/dev/null)"; then
    if [[ "$newest" == "${!1}" ]]; then return; fi
  elif is_there secrets versions describe latest --secret="$2"; then
    say "$1: you may not read it (roles/secretmanager.secretAccessor), so a version is added even if the value is the same"
  fi
  run_with "$1" gcloud secrets versions add "$2" --data-file=- --project="$PROJECT" --quiet
}

# Whether the functions' account may read a secret: may_read ID.
may_read() {
  local readers
  readers="$(gcloud secrets get-iam-policy "$1" --project="$PROJECT" --flatten='bindings[].members' \
    --filter="bindings.role=$READER" --format='value(bindings.members)')" || readers=''
  [[ $'\n'"$readers"$'\n' == *$'\n'"serviceAccount:$ACCOUNT"$'\n'* ]]
}

# Let the functions' account read a secret: let_read ID.
let_read() {
  run gcloud secrets add-iam-policy-binding "$1" --member="serviceAccount:$ACCOUNT" --role="$READER" --condition=None \
    --project="$PROJECT" --format=none --quiet
}

# Print the value of --set-secrets for a function.
secret_flag() {
  local name line flag=''
  for name in $(secrets_of "$1"); do
    line="$(printf '%s' "$SECRET_VERSIONS" | grep "^$name=" || true)"
    flag="$flag${flag:+,}$line"
  done
  printf '%s' "$flag"
}

# Print the value of --set-env-vars for a function, with another separator if one has a comma (gcloud topic escaping).
variable_flag() {
  local name values='' flag='' separator=,
  for name in $(variables_of "$1"); do values="$values$(value "$name")"; done
  if [[ "$values" == *,* ]]; then separator=';;'; fi
  [[ "$values" != *';;'* ]] || fail 'a setting has ;; in it' 'It is the separator between the settings for gcloud: leave it out.'
  for name in $(variables_of "$1"); do flag="$flag${flag:+$separator}$name=$(value "$name")"; done
  if [[ "$separator" == , ]]; then printf '%s' "$flag"; else printf '^;;^%s' "$flag"; fi
}

# pg_net has no cloud identity: the function itself verifies its callers. Cloud Run has a flag for that, which no
# organization policy forbids. Cloud Functions has none: a policy may forbid --allow-unauthenticated.
runtime_deploy() {
  local words
  if [[ "$RUNTIME" == cloud-run ]]; then
    words=(gcloud run deploy "$(deployed_name "$1")" --source="build/$1" --function="${1//-/_}" --base-image=python313)
    words+=(--cpu-boost --no-invoker-iam-check)
  else
    words=(gcloud functions deploy "$(deployed_name "$1")" --gen2 --source="build/$1" --entry-point="${1//-/_}")
    words+=(--runtime=python313 --trigger-http --allow-unauthenticated)
  fi
  # As many calls at a time as there are threads; more would queue inside, unseen by the autoscaler.
  words+=(--concurrency="$THREADS" --cpu=1 --memory=512Mi --timeout=30s)
  # A limit on what a flood of uploads can cost.
  words+=(--max-instances="$MAX_INSTANCES")
  words+=(--set-env-vars="$(variable_flag "$1")" --set-secrets="$(secret_flag "$1")")
  [[ -z "${SERVICE_ACCOUNT:-}" ]] || words+=(--service-account="$SERVICE_ACCOUNT")
  run "${words[@]}" --region="$PLACE" --project="$PROJECT" --quiet
}

# Make a new revision of a function's service with the newest FUNCTIONS_SECRET and no other change, without a build.
# This updates the Cloud Run service of a Cloud Function too: `gcloud functions deploy` would upload and build again.
runtime_roll() {
  local version
  version="$(printf '%s' "$SECRET_VERSIONS" | grep '^FUNCTIONS_SECRET=')"
  run gcloud run services update "$(deployed_name "$1")" --update-secrets="$version" \
    --region="$PLACE" --project="$PROJECT" --quiet
}

runtime_address() {
  if $DRY_RUN; then
    printf '<%s>' "$(address_variable "$1")"
  else
    gcloud run services describe "$(deployed_name "$1")" --region="$PLACE" --project="$PROJECT" --format='value(status.url)'
  fi
}

# Remove the functions and secrets that exist.
runtime_remove() {
  local name
  for name in "${SERVICES[@]}"; do
    name="$(deployed_name "$name")"
    if is_there run services describe "$name" --region="$PLACE"; then
      run gcloud "${GOOGLE_SERVICES[@]}" delete "$name" ${GENERATION:+"$GENERATION"} \
        --region="$PLACE" --project="$PROJECT" --quiet
    fi
  done
  for name in $(secrets_of "${FUNCTIONS[@]}"); do
    name="$(secret_id "$name")"
    if is_there secrets describe "$name"; then run gcloud secrets delete "$name" --project="$PROJECT" --quiet; fi
  done
}

# Whether gcloud can describe a resource; always true in a dry run: is_there WORD…
is_there() {
  $DRY_RUN || gcloud "$@" --project="$PROJECT" --format=none >/dev/null 2>&1
}

runtime_log() {
  echo "gcloud ${GOOGLE_SERVICES[*]} logs read $(deployed_name "$1") ${GENERATION:+"$GENERATION "}--region=$PLACE --project=$PROJECT"
}

runtime_left() {
  echo "left: images that were built, in Artifact Registry of $PROJECT, $PLACE; other services may use that repository:"
  echo "      https://console.cloud.google.com/artifacts?project=$PROJECT"
}
