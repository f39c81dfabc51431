# shellcheck shell=bash
# Hosts that start a process from a Procfile (Heroku, Render, Railway and the like), or your own machine.

# shellcheck disable=SC2034 # for rotate.sh
RUNTIME_ROLLS=false

# Print the folder, which may be pushed as it is, its Procfile line and the variables to set. Of secrets, print only the
# names: the values go from the environment's file into the host's own store, not onto a command line.
runtime_deploy() {
  local name line="web: python -m functions_framework --source=main.py --target=${1//-/_}"
  $DRY_RUN || printf '%s\n' "$line" >"build/$1/Procfile" || fail "build/$1/Procfile cannot be written" 'Correct the permissions of build/.'
  printf '%s\n  folder    build/%s\n' "$(deployed_name "$1")" "$1"
  printf '  Procfile  %s\n' "$line"
  for name in $(variables_of "$1"); do printf '  set       %s=%s\n' "$name" "$(value "$name")"; done
  for name in $(secrets_of "$1"); do printf '  secret    %s (its value is in %s)\n' "$name" "$(env_file)"; done
}

runtime_log() { printf "the host's own log of %s" "$(deployed_name "$1")"; }

runtime_left() {
  echo 'left: the processes at your host, and the variables that you gave it'
}
