# shellcheck shell=bash
# stage: what is deployed, and nothing else, in one folder for each function.

# Make build/<name>/ for the named functions, or for all. What is there and the same is left, so that whoever runs from
# it goes on undisturbed.
stage() {
  local name made
  (($#)) || set -- "${FUNCTIONS[@]}"
  check_functions "$@"
  if $DRY_RUN; then
    run ./deploy.sh stage "$@"
    return
  fi

  mkdir -p build
  for name in "$@"; do
    # Made aside and put in place at the end: a folder that is there is whole.
    made="$(mktemp -d "build/.$name.XXXXXX")"
    chmod 755 "$made"
    mkdir "$made/shared"
    cp "functions/${name//-/_}.py" "$made/main.py"
    cp shared/*.py "$made/shared/"
    cp requirements.txt "$made/"
    if diff -qr -x __pycache__ "$made" "build/$name" >/dev/null 2>&1; then
      rm -rf "$made"
    else
      rm -rf "build/$name" && mv "$made" "build/$name"
    fi
    printf 'staged build/%s (target %s)\n' "$name" "${name//-/_}"
  done
}
