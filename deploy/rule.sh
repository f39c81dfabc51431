# shellcheck shell=bash
# rule: adds, lists and changes rules without SQL. Every value goes to psql as a variable.

rule_usage() {
  cat <<'USAGE'
Usage: ./deploy.sh [options] rule add NAME --bucket BUCKET <which objects> <what to do with them> [--replace]
       ./deploy.sh [options] rule list
       ./deploy.sh [options] rule explain BUCKET OBJECT      why it was or was not processed
       ./deploy.sh [options] rule enable|disable NAME
       ./deploy.sh [options] rule remove NAME

Which objects
  --path GLOB         over the whole key: * stops at /, ** does not (default: **)
  --type TYPE         such as 'video/*' or image/png (default: any)
  --min-size SIZE, --max-size SIZE    bytes, or 500kB, 20MB, 2GB (1 kB is 1,024 bytes)
  --accept-s3         also what is uploaded through the S3 protocol; ittybit itself writes that way

What to do with them
  --automation ID     run this ittybit automation
    --output-prefix P   where it writes by itself, such as made/: objects there trigger no job
  --task KIND         or make this task: video, image, audio …
    --options JSON      such as '{"height": 720}'
    --destination s3://BUCKET/KEY     where the result goes, with {dir} {stem} {ext} {name} {version} {owner_id}, such
                        as 's3://media/processed/{dir}{stem}-720p.mp4' (default: it stays at ittybit)
  --run JSON          or make this run: '{"tasks": [{"kind": "video", "next": [{"kind": "upload", "options": {"url":
                        "s3://BUCKET/KEY"}}]}]}', where the uploads' keys may use the same placeholders

    --delete-results    delete the result, through the Storage API, when its object is deleted

  --sample OBJECT     show whether an object of this name would match, and where its result would go
    --sample-type TYPE, --sample-size SIZE, --sample-owner ID    (default type: by the name's ending)

Adding the same rule again changes nothing. With other values it shows what differs and asks; --replace says yes.
A change applies to later uploads. For objects stored before it, run select ittybit.backfill('NAME', run => true).
USAGE
}

rule() {
  local what="${1:-}"
  if (($#)); then shift; fi
  case "$what $*" in *' --help'* | *' -h') rule_usage && return ;; esac
  case "$what" in
    add) rule_add "$@" ;;
    list) rule_database 0 "$@" && sql deploy/rule_list.sql ;;
    explain) rule_database 2 "$@" && sql deploy/rule_explain.sql "bucket=$1" "object=$2" ;;
    enable) rule_database 1 "$@" && rule_switch "$1" true ;;
    disable) rule_database 1 "$@" && rule_switch "$1" false ;;
    remove) rule_database 1 "$@" && rule_remove "$1" ;;
    -h | --help | help) rule_usage ;;
    *) fail "rule takes add, list, explain, enable, disable or remove" 'See ./deploy.sh rule --help' ;;
  esac
}

# Stop unless there are this many arguments, then connect: rule_database NUMBER ARGUMENT…
rule_database() {
  (($# - 1 == $1)) || fail "expected $1 arguments, got $(($# - 1))" 'See ./deploy.sh rule --help'
  load_environment
  connect_to_database
}

# Read the options into psql's variables, and add the rule.
rule_add() {
  local name='' bucket='' path='**' type='' min_size='' max_size='' accept_s3=false output_prefix='' delete_results=false
  local automation='' task='' options='' destination='' run='' replace=false
  local sample='' sample_type='' sample_size='' sample_owner='' outcome variable
  while (($#)); do
    case "$1" in
      --accept-s3) accept_s3=true && shift && continue ;;
      --delete-results) delete_results=true && shift && continue ;;
      --replace) replace=true && shift && continue ;;
      --bucket | --path | --type | --min-size | --max-size | --output-prefix | --automation | --task | --options | \
        --destination | --run | --sample | --sample-type | --sample-size | --sample-owner)
        [[ -n "${2:-}" ]] || fail "$1 takes a value" 'See ./deploy.sh rule --help'
        variable="${1#--}"
        printf -v "${variable//-/_}" '%s' "$2"
        shift 2
        ;;
      -*) fail "rule add does not take '$1'" 'See ./deploy.sh rule --help' ;;
      *)
        [[ -z "$name" ]] || fail "a rule has one name, and this is another: $1" "Put quotes around '$name $1' if that is one value."
        name="$1"
        shift
        ;;
    esac
  done
  [[ -n "$name" && -n "$bucket" ]] || fail 'rule add takes a name and --bucket' 'See ./deploy.sh rule --help'
  [[ -n "$automation$task$run" ]] ||
    fail "the rule has no action" 'Pass --automation ID, --task KIND --destination s3://…, or --run JSON.'
  [[ -z "$automation" || -z "$task$options$destination" ]] ||
    fail '--automation and --task do not go together' 'An automation has its own tasks: make two rules for both.'
  [[ -z "$run" || -z "$automation$task$options$destination" ]] ||
    fail '--run does not go with --automation or --task' 'A run has its own tasks: make two rules for both.'
  [[ -n "$sample" || -z "$sample_type$sample_size$sample_owner" ]] ||
    fail "--sample-… needs --sample" 'Pass --sample OBJECT as well.'
  [[ -n "$sample_type" ]] || sample_type="$(type_of "$sample")"
  rule_database 0

  set -- "name=$name" "bucket=$bucket" "path=$path" "type=$type" "min_size=$min_size" "max_size=$max_size" \
    "accept_s3=$accept_s3" "output_prefix=$output_prefix" "automation=$automation" "task=$task" "options=$options" \
    "destination=$destination" "run=$run" "delete_results=$delete_results" "sample=$sample" \
    "sample_type=$sample_type" "sample_size=$sample_size" "sample_owner=$sample_owner"
  outcome="$(sql deploy/rule_add.sql "$@" "replace=$replace")"
  if [[ "$outcome" == differs* ]]; then
    say "There is a rule $name already, with other values:"
    say "${outcome#*$'\n'}"
    confirm 'Replace it? Queued jobs keep their own copy of the action.'
    outcome="$(sql deploy/rule_add.sql "$@" replace=true)"
  fi
  printf '%s\n' "$outcome"
}

# Print the type that a browser would give an object of this name.
type_of() {
  case "$(printf '%s' "${1##*.}" | tr '[:upper:]' '[:lower:]')" in
    mp4 | m4v) echo video/mp4 ;;
    mov) echo video/quicktime ;;
    mkv) echo video/x-matroska ;;
    webm) echo video/webm ;;
    mp3) echo audio/mpeg ;;
    m4a) echo audio/mp4 ;;
    wav) echo audio/wav ;;
    jpg | jpeg) echo image/jpeg ;;
    png) echo image/png ;;
    gif) echo image/gif ;;
    webp) echo image/webp ;;
    *) echo application/octet-stream ;;
  esac
}

rule_switch() {
  local outcome
  outcome="$(sql deploy/rule_switch.sql "name=$1" "enabled=$2")"
  [[ -n "$outcome" ]] || fail_without_rule "$1"
  printf '%s\n' "$outcome"
}

rule_remove() {
  local answer
  if ! $DRY_RUN; then
    answer="$(query deploy/rule_jobs.sql "name=$1")"
    [[ -n "$answer" ]] || fail_without_rule "$1"
    say "${answer#*$'\n'}"
  fi
  confirm "Remove rule $1?"
  sql deploy/rule_remove.sql "name=$1"
}

fail_without_rule() {
  local names
  names="$(query deploy/rule_names.sql)"
  fail "there is no rule $1" "There are: ${names:-none yet}"
}
