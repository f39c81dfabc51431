# shellcheck shell=bash
# stage: what is deployed, and nothing else, in one folder for each function.

# Make build/<name>/ for the named functions, or for all.
stage() {
  local name
  (($#)) || set -- "${FUNCTIONS[@]}"
  check_functions "$@"

  for name in "$@"; do
    # Made aside and put in place at the end: a folder that is there is whole.
    rm -rf "build/.$name" && mkdir -p "build/.$name/shared"
    cp "functions/${name//-/_}.py" "build/.$name/main.py"
    cp shared/*.py "build/.$name/shared/"
    cp requirements.txt "build/.$name/"
    rm -rf "build/$name" && mv "build/.$name" "build/$name"
    printf 'staged build/%s (target %s)\n' "$name" "${name//-/_}"
  done
}
