# shellcheck shell=bash
# What every verb shares: how it speaks, asks, and runs what changes something.

readonly FUNCTIONS=(on-upload push-back create-connection)

# Set by the options in front of the verb.
ENVIRONMENT=''    # --env NAME; empty is the one of .env
DRY_RUN=false      # --dry-run
ASSUME_YES=false  # --yes

# Say what is wrong and how to go on, and stop.
fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  printf '  %s\n' "${2:-See ./deploy.sh --help}" >&2
  exit 2
}

# Say what is being done.
say() {
  printf '%s\n' "$*" >&2
}

# Run a command that changes something; in a dry run print it instead, ready to be pasted.
# No secret is ever an argument: whoever may list processes sees them.
run() {
  if $DRY_RUN; then
    show "$@"
  else
    "$@" || fail "'$1' failed, and nothing was done after it" "Mend what it says above, and run the same again."
  fi
}

# Print a command as a shell reads it.
show() {
  local word
  printf '%s' "$(quoted "$1")"
  shift
  for word in "$@"; do printf ' %s' "$(quoted "$word")"; done
  printf '\n'
}

# Say what comes next: a dry run's output is a script, and this its comment.
step() {
  if $DRY_RUN; then printf '# %s\n' "$*"; else say "$*"; fi
}

# As run(), with the value of a variable on the command's standard input: run_with NAME command…
run_with() {
  local name="$1"
  shift
  if $DRY_RUN; then
    printf 'printf %%s "$%s" | ' "$name"
    run "$@"
  else
    printf '%s' "${!name}" | run "$@"
  fi
}

# Stop unless these commands are there; a dry run needs none.
check_tools() {
  local tool
  if $DRY_RUN; then return; fi
  for tool in "$@"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed, or not on PATH" "Install it, and run the same again."
  done
}

# Stop unless these variables are set; all that are missing are named at once.
check_settings() {
  local name missing=''
  for name in "$@"; do
    [[ -n "${!name:-}" ]] || missing="$missing${missing:+, }$name"
  done
  if $DRY_RUN || [[ -z "$missing" ]]; then return; fi
  fail "not set: $missing" "Set them in $(env_file); .env.example says what each is."
}

# A word as a shell reads it; a placeholder such as <REGION> stays readable.
quoted() {
  case "$1" in
    *[!A-Za-z0-9_./:=,@%+\<\>-]* | '') printf '%q' "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

# The value of a variable that a verb needs. In a dry run what is absent prints as <NAME>.
value() {
  local name="$1"
  if [[ -n "${!name:-}" ]]; then
    printf '%s' "${!name}"
  elif $DRY_RUN; then
    printf '<%s>' "$name"
  else
    fail "$name is not set" "Set it in $(env_file) or in the environment."
  fi
}

# Ask before what costs or deletes. Without a terminal only --yes is an answer.
confirm() {
  if $DRY_RUN || $ASSUME_YES; then return; fi
  [[ -t 0 ]] || fail "this asks first, and there is no terminal to answer at: $1" 'Say --yes if you are sure.'
  local answer
  printf '%s [y/N] ' "$1" >&2
  read -r answer
  [[ "$answer" == [yY]* ]] || fail 'stopped, and nothing was changed' 'Answer y to go on.'
}

# The file that names this environment's settings.
env_file() {
  printf '.env%s' "${ENVIRONMENT:+.$ENVIRONMENT}"
}

# The deployed name of a function: --env staging keeps its own beside the others.
deployed_name() {
  printf '%s%s' "$1" "${ENVIRONMENT:+-$ENVIRONMENT}"
}

# Refuse a name that is not one of the functions.
check_functions() {
  local name
  for name in "$@"; do
    case " ${FUNCTIONS[*]} " in
      *" $name "*) ;;
      *) fail "no function '$name'" "There are: ${FUNCTIONS[*]}" ;;
    esac
  done
}

# Read NAME=value lines as they stand: a value is never run as shell. The file wins over what the shell had before, so
# that a variable left over from another environment does not get mixed in.
load_environment() {
  local file line name
  file="$(env_file)"
  if [[ ! -f "$file" ]]; then
    [[ -z "$ENVIRONMENT" ]] || fail "there is no $file" "Copy .env.example to $file and fill it in."
    return
  fi
  while IFS= read -r line || [[ -n "$line" ]]; do
    case "$line" in
      '' | '#'*) continue ;;
    esac
    name="${line%%=*}"
    [[ "$name" =~ ^[A-Z][A-Z0-9_]*$ && "$line" == *=* ]] ||
      fail "$file has a line that is not NAME=value: $name" 'Comments start with #; values are not quoted.'
    line="${line#*=}"
    case "$line" in
      \"*\" | \'*\') fail "$file has $name in quotes" 'Take them off: a value is read as it stands.' ;;
    esac
    [[ -z "$line" ]] || export "$name=$line"
  done < <(tr -d '\r' <"$file")
}

# Put NAME=value into the environment's file, in the place of an earlier line, and export it. The file is replaced whole:
# whoever reads it sees the old or the new. Nobody but its owner may read it, as it holds keys.
keep() {
  local name="$1" value="$2" file line is_written=false
  file="$(env_file)"
  while [[ -L "$file" ]]; do
    line="$(readlink "$file")"
    [[ "$line" == /* ]] || line="$(dirname "$file")/$line"
    file="$line"
  done
  ASIDE="$(umask 077 && mktemp "$file.XXXXXX")" || fail "$file cannot be written" 'Make its folder writable.'
  {
    if [[ -f "$file" ]]; then
      while IFS= read -r line || [[ -n "$line" ]]; do
        if [[ "$line" != "$name="* ]]; then
          printf '%s\n' "$line"
        elif ! $is_written; then
          printf '%s=%s\n' "$name" "$value" && is_written=true
        fi
      done <"$file"
    fi
    $is_written || printf '%s=%s\n' "$name" "$value"
  } >"$ASIDE"
  mv -f "$ASIDE" "$file"
  ASIDE=''
  export "$name=$value"
}

# What keep had begun when it was interrupted.
ASIDE=''
trap '[[ -z "$ASIDE" ]] || rm -f "$ASIDE"' EXIT
