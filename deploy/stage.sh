# shellcheck shell=bash
# stage: what is deployed, and nothing else, in one folder for each function, or in one for all of them.

# Make build/<name>/ for the named services, or for each function. What is there and the same is left, so that whoever runs from
# it goes on undisturbed.
stage() {
  local name errors
  (($#)) || set -- "${FUNCTIONS[@]}"
  [[ "$*" == together ]] || check_functions "$@"
  if $DRY_RUN; then
    run ./deploy.sh stage "$@"
    return
  fi

  for name in "$@"; do
    errors="$(stage_one "$name" 2>&1)" || fail "build/$name cannot be written: ${errors%%$'\n'*}" 'Make room there, or mend its rights.'
    printf 'staged build/%s (target %s)\n' "$name" "${name//-/_}"
  done
}

# Make build/<name>/ aside, and put it in place at the end: a folder that is there is whole.
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

# Put the functions that together's main.py calls beside it: stage_functions_of NAME FOLDER.
stage_functions_of() {
  local name
  if [[ "$1" != together ]]; then return; fi
  mkdir "$2/functions" || return
  for name in "${FUNCTIONS[@]}"; do
    cp "functions/${name//-/_}.py" "$2/functions/" || return
  done
}
