# shellcheck shell=bash
# The container's image: one for all functions. The environment selects the function at start.

# Build it from a folder with only the deployed files: build_image NAME PLATFORM. An empty PLATFORM means docker's
# default.
build_image() {
  local image="$1" platform="$2"
  check_tools docker
  step "building the image $image"
  if $DRY_RUN; then
    step 'in build/container: functions/, shared/, requirements.txt and the Dockerfile'
  else
    rm -rf build/container && mkdir -p build/container/functions build/container/shared
    cp functions/*.py build/container/functions/
    cp shared/*.py build/container/shared/
    cp requirements.txt deploy/Dockerfile build/container/
  fi
  run docker build --pull --tag "$image" ${platform:+--platform "$platform"} build/container
}

# Push it, if its name says where to: me/name, ghcr.io/me/name.
push_image() {
  if [[ "$1" != */* ]]; then return; fi
  step "pushing the image into its registry"
  run docker push "$1"
}
