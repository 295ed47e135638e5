#!/usr/bin/env bash
# Builds the runtime image. Settings: see image.sh, and
#   BUILDER=buildah                    builds for Podman where Podman itself cannot
#   BASE_IMAGE=...                     another Debian with Python 3.11 or newer
#   DEVICE=cpu|gpu|tensorrt            which requirements go in
#   API_METHOD=exec|invoke             how the platform calls the image: once for each case, or as a service
#   TARGET=train|export                another stage of the Dockerfile; export writes a bundle to OUTPUT
#   BUILD_ARGS="--no-cache"            further arguments for the builder, split at blanks
source "$(dirname "${BASH_SOURCE[0]}")/image.sh"

builder="${BUILDER:-$engine}"
command -v "$builder" >/dev/null || die "$builder is not installed; install it, or set BUILDER"

arguments=(--platform linux/amd64 --build-arg "VERSION=$version" --build-arg "DEVICE=${DEVICE:-cpu}")
commit="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
[ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ] || commit=unknown # a repository around this is another's
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || [ "$commit" = unknown ] || commit+="-dirty"
arguments+=(--build-arg "BUNDLE=$bundle" --build-arg "COMMIT=$commit")
case "${API_METHOD:-exec}" in
  exec) ;; # the platform's default, without a label
  invoke) arguments+=(--build-arg API_METHOD=invoke --label org.grand-challenge.api-method=invoke) ;;
  *) die "API_METHOD=$API_METHOD: choose exec or invoke" ;;
esac
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
case "${TARGET:-runtime}" in
  export) arguments+=(--target export --output "type=local,dest=${OUTPUT:-runs/default/model}") ;;
  *) arguments+=(--target "${TARGET:-runtime}" -t "$image") ;;
esac
chmod -R a+rX process.py mitosis resources training "$bundle" 2>/dev/null || true # the image's user is another: umask 077 would lock it out
read -ra further <<<"${BUILD_ARGS:-}"
case "$builder" in
  buildah) command=(buildah bud --format docker) ;;
  *) command=("$builder" build) ;;
esac
"${command[@]}" "${arguments[@]}" ${further[@]+"${further[@]}"} . || die "$builder could not build it; its messages are above"

case "${TARGET:-runtime}" in
  export)
    chmod -R a+rX "${OUTPUT:-runs/default/model}" # Buildah writes it for its own user, the image runs as another
    echo "wrote the bundle ${OUTPUT:-runs/default/model}"
    ;;
  train) echo "built $image: $(($(inspect '{{.Size}}') / 1000000)) MB uncompressed" ;;
  *) echo "built $image: $(($(inspect '{{.Size}}') / 1000000)) MB uncompressed, of which the bundle is $(du -sm --exclude=parameters.safetensors "$bundle" | cut -f1) MB" ;;
esac
