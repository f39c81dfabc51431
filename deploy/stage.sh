# shellcheck shell=bash
# stage: what is deployed, and nothing else, in one folder for each function.

# Make build/<name>/ for the named functions, or for all.
stage() {
  local name file names=("$@")
  ((${#names[@]})) || names=("${FUNCTIONS[@]}")

  for name in "${names[@]}"; do
    [[ " ${FUNCTIONS[*]} " == *" $name "* ]] || fail "no function '$name'" "There are: ${FUNCTIONS[*]}"
  done

  for name in "${names[@]}"; do
    file="functions/${name//-/_}.py"
    # Made aside and put in place at the end: a folder that is there is whole.
    rm -rf "build/.$name" && mkdir -p "build/.$name/shared"
    cp "$file" "build/.$name/main.py"
    cp shared/*.py "build/.$name/shared/"
    cp requirements.txt "build/.$name/"
    rm -rf "build/$name" && mv "build/.$name" "build/$name"
    printf 'staged build/%s (target %s)\n' "$name" "${name//-/_}"
  done
}
