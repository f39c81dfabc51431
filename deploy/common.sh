# shellcheck shell=bash
# Shared by all verbs: messages, questions, commands that change something, and the environment's file.

readonly FUNCTIONS=(on-upload push-back create-connection)
# Each function is deployed as its own service, or all of them as one service with the name together.
# shellcheck disable=SC2034 # for deploy/runtimes/
readonly SERVICES=("${FUNCTIONS[@]}" together)

# Calls to this machine bypass the shell's proxy.
no_proxy="${no_proxy:-${NO_PROXY:-}}"
[[ "$no_proxy" == '*' ]] || no_proxy="${no_proxy:+$no_proxy,}localhost,127.0.0.1,::1"
export no_proxy NO_PROXY="$no_proxy"

# Options of all verbs.
ENVIRONMENT=''    # --env NAME; empty: .env
DRY_RUN=false     # --dry-run
ASSUME_YES=false  # --yes

# Print what is wrong and what to do about it, and stop.
fail() {
  printf 'deploy.sh: %s\n  %s\n' "$1" "${2:-See ./deploy.sh --help}" >&2
  exit 2
}

# Print the version of this clone and of its functions.
version() {
  local pattern='__version__ = "([^"]+)"'
  [[ "$(<shared/__init__.py)" =~ $pattern ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

# Print a message to stderr.
say() {
  printf '%s\n' "$*" >&2
}

# Run a command that changes something; in a dry run print it instead, ready to be pasted. No secret may be an argument:
# everyone who can list processes would see it.
run() {
  if $DRY_RUN; then
    show "$@"
  else
    "$@" || fail "'$1' failed, and nothing was done after it" "Fix what it reports above, then run the command again."
  fi
}

# Print a command, quoted for a shell. A placeholder such as <REGION> stays readable.
show() {
  local word line=''
  for word in "$@"; do
    case "$word" in *[!A-Za-z0-9_./:=,@%+\<\>-]* | '') printf -v word '%q' "$word" ;; esac
    line="$line${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Print the next step. In a dry run it is a comment, because the output of a dry run is a script.
step() {
  if $DRY_RUN; then printf '# %s\n' "$*"; else say "$*"; fi
}

# Like run(), with the value of a variable on the command's standard input: run_with NAME COMMAND…
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

# Stop unless these commands are installed; a dry run needs none.
check_tools() {
  local tool
  if $DRY_RUN; then return; fi
  for tool in "$@"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed, or not on PATH" "Install it, then run the command again."
  done
}

# Stop unless these variables are set, and name all that are missing.
check_settings() {
  local name missing=''
  for name in "$@"; do
    [[ -n "${!name:-}" ]] || missing="$missing${missing:+, }$name"
  done
  if $DRY_RUN || [[ -z "$missing" ]]; then return; fi
  fail "not set: $missing" "Set them in $(env_file). docs/environment.md describes each."
}

# Print the value of a variable. If it is not set, stop; a dry run prints <NAME> instead.
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

# Ask before something costs money or is deleted. Without a terminal, --yes is required.
confirm() {
  if $DRY_RUN || $ASSUME_YES; then return; fi
  [[ -t 0 ]] || fail "this needs an answer, and there is no terminal to ask at: $1" 'Pass --yes to answer yes.'
  local answer
  printf '%s [y/N] ' "$1" >&2
  read -r answer
  [[ "$answer" == [yY]* ]] || fail 'stopped, and nothing was changed' 'Answer y to go on.'
}

# Print the name of this environment's settings file. `make serve` writes the file of the environment local.
env_file() {
  if [[ "$ENVIRONMENT" == local ]]; then echo build/serve.env; else printf '.env%s' "${ENVIRONMENT:+.$ENVIRONMENT}"; fi
}

# Print how to make that file.
how_to_make_env_file() {
  if [[ "$ENVIRONMENT" == local ]]; then
    echo 'make serve, in another terminal'
  else
    printf 'cp .env.example %s; chmod 600 %s; then fill it in, as docs/getting-started.md says' "$(env_file)" "$(env_file)"
  fi
}

# Print the name that a service is deployed under. Each --env has its own names.
deployed_name() {
  printf '%s%s' "$1" "${ENVIRONMENT:+-$ENVIRONMENT}"
}

# Stop if a name is not a function's.
check_functions() {
  local name
  for name in "$@"; do
    case " ${FUNCTIONS[*]} " in
      *" $name "*) ;;
      *) fail "no function '$name'" "There are: ${FUNCTIONS[*]}" ;;
    esac
  done
}

# Print the functions of a service, a line each.
functions_of() {
  if [[ "$1" == together ]]; then printf '%s\n' "${FUNCTIONS[@]}"; else echo "$1"; fi
}

# Print the services of these functions, a line each.
services_of() {
  if [[ -n "${DEPLOY_TOGETHER:-}" ]] && (($#)); then echo together; else printf '%s\n' "$@"; fi
}

# Install the Python packages that deploy.sh needs, on first use: those of a deployed function and a few more.
VENV="${VENV:-.venv}"
PYTHON_IS_THERE=false
ensure_python() {
  if $PYTHON_IS_THERE; then return; fi
  check_tools make
  # Not to stdout: programs read the output of doctor --json.
  make --quiet "$VENV/deploy" "VENV=$VENV" >&2 || fail "deploy.sh's Python packages could not be installed" 'Fix the error above.'
  PYTHON_IS_THERE=true
}

# Export the variables that a Python module prints: each name and value followed by a NUL, and an empty name at the
# end. An empty value unsets the variable. The module prints its errors itself.
take_variables() {
  local name='' value
  ensure_python
  while IFS= read -r -d '' name && [[ -n "$name" && "$name" != '=' ]]; do
    IFS= read -r -d '' value
    if [[ -n "$value" ]]; then export "$name=$value"; else unset "$name"; fi
  done < <("$VENV/bin/python" -m "$@" || printf '=\0')
  [[ "$name" != '=' ]] || exit 2
}

# Export the variables of the environment's file (deploy/env_file.py). The file wins over the shell, so that no variable
# of another environment gets mixed in.
load_environment() {
  local file
  file="$(env_file)"
  if [[ -f "$file" ]]; then
    take_variables deploy.env_file "$file"
  elif [[ -n "$ENVIRONMENT" ]]; then
    fail "there is no $file" "$(how_to_make_env_file)"
  fi
}

# Write NAME=value into the environment's file, in place of an earlier line, and export it: keep NAME VALUE
keep() {
  ensure_python
  printf '%s' "$2" | "$VENV/bin/python" -m deploy.env_file "$(env_file)" "$1" || exit 2
  export "$1=$2"
}

# Stop if a setting would keep a function from starting (deploy/check_environment.py). A dry run accepts all.
check_values() {
  local said
  if $DRY_RUN; then return; fi
  ensure_python
  said="$("$VENV/bin/python" -m deploy.check_environment)" ||
    fail "$said" "Correct it in $(env_file). A FUNCTIONS_… line that you delete is made again."
  if [[ -n "$said" ]]; then say "$said"; fi
}
