# shellcheck shell=bash
# doctor: what is wrong with the project, and what to do about it (deploy/doctor/).

# Examine the project that .env, or the environment's file, describes. It runs in the virtual environment of `make`, which
# is made on first use.
doctor() {
  local venv="${VENV:-.venv}"
  if $DRY_RUN; then
    run make --quiet "$venv/deploy" "VENV=$venv"
    run "$venv/bin/python" -m deploy.doctor "$@"
    return
  fi
  command -v make >/dev/null || fail 'make is not installed' 'Install make; or see what README.md says under Try it.'
  # What it installs is no finding: --json is read by programs.
  make --quiet "$venv/deploy" "VENV=$venv" >&2 || fail 'the doctor could not be installed' 'Mend what it says above.'
  VENV_PYTHON="$venv/bin/python"
  load_environment
  "$VENV_PYTHON" -m deploy.doctor "$@"
}
