#!/usr/bin/env bash
# Builds the runtime image.
#   ./build.sh                         IMAGE=mitosis:<version> with Docker
#   ENGINE=podman ./build.sh           the same with Podman;  BUILDER=buildah builds with Buildah for Podman
#   BASE_IMAGE=...                     another Debian with Python 3.11 or newer
#   DEVICE=gpu                         the GPU image
#   BUILD_ARGS="--no-cache"            further arguments for the builder, split at blanks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
die() { echo "build.sh: $*" >&2; exit 1; }

engine="${ENGINE:-docker}"
builder="${BUILDER:-$engine}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
image="${IMAGE:-mitosis:$version}"
command -v "$builder" >/dev/null || die "$builder is not installed; install it, or set ENGINE=docker or ENGINE=podman"
[ -f model/bundle.yaml ] || die "model/bundle.yaml is missing; restore model/ or train a bundle with 'make train'"

arguments=(--platform linux/amd64 --build-arg "VERSION=$version" --build-arg "DEVICE=${DEVICE:-cpu}")
arguments+=(--build-arg "COMMIT=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
read -ra further <<<"${BUILD_ARGS:-}"
case "$builder" in
  buildah) command=(buildah bud --format docker) ;;
  *) command=("$builder" build) ;;
esac
"${command[@]}" "${arguments[@]}" ${further[@]+"${further[@]}"} -t "$image" . || die "$builder could not build $image; its messages are above"
bytes="$("$engine" image inspect --format '{{.Size}}' "$image")"
echo "built $image: $((bytes / 1000000)) MB uncompressed, of which the bundle is $(du -sm model | cut -f1) MB"
