# shellcheck shell=bash
# Cloud Run and Cloud Functions, second generation: the same builder and the same services, through two APIs.
# Flags as in https://cloud.google.com/sdk/gcloud/reference; none asks (--quiet), as deploy.sh has asked.

GOOGLE_APIS=({run,cloudbuild,artifactregistry,secretmanager}.googleapis.com)
if [[ "$RUNTIME" == cloud-run ]]; then
  GOOGLE_SERVICES=(run services)
  GENERATION=''
else
  GOOGLE_APIS=(cloudfunctions.googleapis.com "${GOOGLE_APIS[@]}")
  GOOGLE_SERVICES=(functions)
  GENERATION=--gen2
fi

# Where the functions are. Every command says it: what gcloud is set to on this machine does not count.
runtime_check() {
  local account
  check_tools gcloud curl
  check_settings GOOGLE_CLOUD_PROJECT REGION
  PROJECT="$(value GOOGLE_CLOUD_PROJECT)"
  PLACE="$(value REGION)"
  if $DRY_RUN; then return; fi
  account="$(gcloud auth list --filter=status:ACTIVE --format='value(account)')" || account=''
  [[ -n "$account" ]] || fail 'gcloud is not signed in' 'gcloud auth login'
  gcloud projects describe "$PROJECT" --format='value(projectId)' >/dev/null ||
    fail "$account cannot see the project $PROJECT" 'Mend GOOGLE_CLOUD_PROJECT, or: gcloud auth login'
}

runtime_question() {
  local names=''
  local name
  for name in "$@"; do names="$names${names:+, }$(deployed_name "$name")"; done
  printf 'Deploy %s to %s in project %s, %s? Builds, instances and secrets cost there.' "$names" "$RUNTIME" "$PROJECT" "$PLACE"
}

# Switch on the APIs that are needed, where they are not.
runtime_prepare() {
  local api enabled='' missing=()
  if ! $DRY_RUN; then
    enabled="$(gcloud services list --enabled --project="$PROJECT" --format='value(config.name)')" ||
      fail "the APIs of project $PROJECT cannot be listed" 'It takes roles/serviceusage.serviceUsageViewer.'
  fi
  for api in "${GOOGLE_APIS[@]}"; do
    [[ $'\n'"$enabled"$'\n' == *$'\n'"$api"$'\n'* ]] || missing+=("$api")
  done
  if ((${#missing[@]})); then
    step 'the APIs that this needs'
    run gcloud services enable "${missing[@]}" --project="$PROJECT" --quiet
  fi
}

# The name of a secret in Secret Manager; --env keeps its own.
secret_id() {
  printf 'supabase-ittybit-%s%s' "$(printf '%s' "$1" | tr 'A-Z_' 'a-z-')" "${ENVIRONMENT:+-$ENVIRONMENT}"
}

# Store these secrets, and let the functions' account read them. SECRET_VERSIONS is then a line for each,
# NAME=id:version: a revision names the version that it runs with, so that all its instances have the same.
runtime_store() {
  local name id version member
  SECRET_VERSIONS=''
  member="serviceAccount:$(service_account)"
  for name in "$@"; do
    id="$(secret_id "$name")"
    step "$name: in Secret Manager as $id"
    store_secret "$name" "$id"
    may_read "$id" "$member"
    if $DRY_RUN; then
      version='<VERSION>'
    else
      version="$(gcloud secrets versions describe latest --secret="$id" --project="$PROJECT" --format='value(name)')" ||
        fail "the newest version of $id is not known" 'It takes roles/secretmanager.viewer.'
    fi
    SECRET_VERSIONS="$SECRET_VERSIONS$name=$id:${version##*/}"$'\n'
  done
}

# Where a secret is, if it is.
runtime_holds() {
  if is_there secrets describe "$(secret_id "$1")"; then
    printf 'gcloud secrets versions access latest --secret=%s --project=%s' "$(secret_id "$1")" "$PROJECT"
  fi
}

# Make the value of a variable the newest version of a secret, unless it is.
store_secret() {
  local stored
  if $DRY_RUN; then
    step '(made unless it is there; a version added unless it is the newest already)'
  fi
  if $DRY_RUN || ! is_there secrets describe "$2"; then
    run gcloud secrets create "$2" --replication-policy=automatic --project="$PROJECT" --quiet
  elif stored="$(gcloud secrets versions access latest --secret="$2" --project="$PROJECT" 2>/dev/null)"; then
    if [[ "$stored" == "${!1}" ]]; then return; fi
  elif is_there secrets versions describe latest --secret="$2"; then
    say "$1: you may not read it (roles/secretmanager.secretAccessor), so a version is added, changed or not"
  fi
  run_with "$1" gcloud secrets versions add "$2" --data-file=- --project="$PROJECT" --quiet
}

# Let an account read a secret, unless it may.
may_read() {
  local role=roles/secretmanager.secretAccessor readers=''
  if ! $DRY_RUN; then
    readers="$(gcloud secrets get-iam-policy "$1" --project="$PROJECT" --flatten='bindings[].members' \
      --filter="bindings.role=$role" --format='value(bindings.members)')" || readers=''
  fi
  [[ $'\n'"$readers"$'\n' != *$'\n'"$2"$'\n'* ]] || return 0
  run gcloud secrets add-iam-policy-binding "$1" --member="$2" --role="$role" --condition=None \
    --project="$PROJECT" --format=none --quiet
}

# Who the functions run as: SERVICE_ACCOUNT, or the project's default account of Compute Engine.
service_account() {
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then
    printf '%s' "$SERVICE_ACCOUNT"
  elif $DRY_RUN; then
    printf '<SERVICE_ACCOUNT>'
  else
    printf '%s-compute@developer.gserviceaccount.com' \
      "$(gcloud projects describe "$PROJECT" --format='value(projectNumber)')"
  fi
}

# The value of --set-secrets for a function.
secret_flag() {
  local name line flag=''
  for name in $(secrets_of "$1"); do
    line="$(printf '%s' "$SECRET_VERSIONS" | grep "^$name=" || true)"
    flag="$flag${flag:+,}$line"
  done
  printf '%s' "$flag"
}

# The value of --set-env-vars for a function. Where a value has a comma, another separator (gcloud topic escaping).
variable_flag() {
  local name values='' flag='' separator=,
  for name in $(variables_of "$1"); do values="$values$(value "$name")"; done
  if [[ "$values" == *,* ]]; then separator=';;'; fi
  [[ "$values" != *';;'* ]] || fail 'a setting has ;; in it' 'gcloud could not take it apart: leave it out.'
  for name in $(variables_of "$1"); do flag="$flag${flag:+$separator}$name=$(value "$name")"; done
  if [[ "$separator" == , ]]; then printf '%s' "$flag"; else printf '^;;^%s' "$flag"; fi
}

# pg_net has no cloud identity: the function itself verifies its callers. Cloud Run has a switch for that, which no
# organization policy forbids. Cloud Functions has not: a policy may forbid --allow-unauthenticated.
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
  # A fence around what a flood can cost.
  words+=(--max-instances="$MAX_INSTANCES")
  words+=(--set-env-vars="$(variable_flag "$1")" --set-secrets="$(secret_flag "$1")")
  [[ -z "${SERVICE_ACCOUNT:-}" ]] || words+=(--service-account="$SERVICE_ACCOUNT")
  run "${words[@]}" --region="$PLACE" --project="$PROJECT" --quiet
}

# A new revision of a function's service with the newest FUNCTIONS_SECRET and nothing else new: no build. It goes by the
# service for a Cloud Function as well: `gcloud functions deploy` would upload and build again.
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

# What is there of the functions and of their secrets.
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

# Whether gcloud can describe a thing; in a dry run it can: is_there WORD…
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
