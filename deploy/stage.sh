# shellcheck shell=bash
# stage: copies the deployed files, and nothing else, into one folder for each function, or into one for all of them.

# Make build/<name>/ for the named services, or for each function. A folder that would not change is
# left alone, so that a process which runs from it goes on undisturbed.
stage() {
  local name errors
  if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    echo 'Usage: ./deploy.sh [options] stage [name… | together]'
    echo 'Copies what is deployed into build/<name>/, for each named function or for all three; together: all in one.'
    return
  fi
  (($#)) || set -- "${FUNCTIONS[@]}"
  [[ "$*" == together ]] || check_functions "$@"
  if $DRY_RUN; then
    run ./deploy.sh stage "$@"
    return
  fi

  for name in "$@"; do
    errors="$(stage_one "$name" 2>&1)" || fail "build/$name cannot be written: ${errors%%$'\n'*}" 'Make room there, or correct its permissions.'
    printf 'staged build/%s (target %s)\n' "$name" "${name//-/_}"
  done
}

# Make build/<name>/ under a temporary name and move it into place at the end, so that it is never incomplete.
stage_one() {
  local made
  mkdir -p build && made="$(mktemp -d "build/.$1.XXXXXX")" || return
  if chmod 755 "$made" && mkdir "$made/shared" && cp "functions/${1//-/_}.py" "$made/main.py" &&
    cp shared/*.py "$made/shared/" && cp requirements.txt "$made/" && stage_functions_of "$1" "$made"; then
    # A Procfile is put there by deploy/runtimes/process.sh.
    if diff -qr -x __pycache__ -x Procfile "$made" "build/$1" >/dev/null 2>&1; then
      rm -rf "$made"
    else
      rm -rf "build/$1" && mv "$made" "build/$1"
    fi
  else
    rm -rf "$made"
    return 1
  fi
}

# Copy the functions that together's main.py calls into its folder: stage_functions_of NAME FOLDER.
stage_functions_of() {
  local name
  if [[ "$1" != together ]]; then return; fi
  mkdir "$2/functions" || return
  for name in "${FUNCTIONS[@]}"; do
    cp "functions/${name//-/_}.py" "$2/functions/" || return
  done
}
