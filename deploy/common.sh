# shellcheck shell=bash
# What every verb shares: how it speaks, asks, and runs what changes something.

readonly FUNCTIONS=(on-upload push-back create-connection)
# What a function may be deployed as: a service of its own, or the one of all together.
# shellcheck disable=SC2034 # for deploy/runtimes/
readonly SERVICES=("${FUNCTIONS[@]}" together)

# Whoever answers on this machine is asked directly, whatever proxy the shell names for others.
no_proxy="${no_proxy:-${NO_PROXY:-}}"
[[ "$no_proxy" == '*' ]] || no_proxy="${no_proxy:+$no_proxy,}localhost,127.0.0.1,::1"
export no_proxy NO_PROXY="$no_proxy"

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

# The version of this clone; shared/__init__.py has it for the functions as well.
version() {
  local pattern='__version__ = "([^"]+)"'
  [[ "$(<shared/__init__.py)" =~ $pattern ]] && printf '%s\n' "${BASH_REMATCH[1]}"
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

# The file that names this environment's settings; `make serve` writes that of the environment named local.
env_file() {
  if [[ "$ENVIRONMENT" == local ]]; then echo build/serve.env; else printf '.env%s' "${ENVIRONMENT:+.$ENVIRONMENT}"; fi
}

# How that file comes to be.
how_to_make_env_file() {
  if [[ "$ENVIRONMENT" == local ]]; then
    echo 'make serve, in another terminal'
  else
    printf 'cp .env.example %s; chmod 600 %s; then fill it in, as .env.example says' "$(env_file)" "$(env_file)"
  fi
}

# The deployed name of a service: --env staging keeps its own beside the others.
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

# The functions that a service is, a line each.
functions_of() {
  if [[ "$1" == together ]]; then printf '%s\n' "${FUNCTIONS[@]}"; else echo "$1"; fi
}

# The services that these functions are deployed as, a line each.
services_of() {
  if [[ -n "${DEPLOY_TOGETHER:-}" ]] && (($#)); then echo together; else printf '%s\n' "$@"; fi
}

# The Python that reads settings: it has what a deployed function has, and python-dotenv. Installed on first use.
VENV_PYTHON=''
ensure_python() {
  local venv="${VENV:-.venv}"
  if [[ -n "$VENV_PYTHON" ]]; then return; fi
  command -v make >/dev/null || fail 'make is not installed' 'Install make, and run the same again.'
  make --quiet "$venv/deploy" "VENV=$venv" >&2 || fail 'what deploy.sh needs could not be installed' 'Mend what it says above.'
  VENV_PYTHON="$venv/bin/python"
}

# Export what the environment's file says (deploy/env_file.py). The file wins over what the shell had before, so that a
# variable left over from another environment does not get mixed in.
load_environment() {
  local file name='' value
  file="$(env_file)"
  if [[ ! -f "$file" ]]; then
    [[ -z "$ENVIRONMENT" ]] || fail "there is no $file" "$(how_to_make_env_file)"
    return
  fi
  ensure_python
  while IFS= read -r -d '' name && [[ -n "$name" && "$name" != '=' ]]; do
    IFS= read -r -d '' value
    export "$name=$value"
  done < <("$VENV_PYTHON" -m deploy.env_file "$file" || printf '=\0')
  # What is wrong with the file has been said.
  [[ "$name" != '=' ]] || exit 2
}

# Put NAME=value into the environment's file, in the place of an earlier line, and export it.
keep() {
  ensure_python
  printf '%s' "$2" | "$VENV_PYTHON" -m deploy.env_file "$(env_file)" "$1" || exit 2
  export "$1=$2"
}

# Stop at a setting that no function would start with (deploy/check_environment.py). A dry run takes them as they are.
check_values() {
  local said
  if $DRY_RUN; then return; fi
  ensure_python
  said="$("$VENV_PYTHON" -m deploy.check_environment)" ||
    fail "$said" "Mend it in $(env_file). A FUNCTIONS_… line that is taken out is made anew."
  if [[ -n "$said" ]]; then say "$said"; fi
}
