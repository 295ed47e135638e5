# shellcheck shell=bash
# What build.sh, test.sh and export.sh share; they source it. Settings, all from the environment:
#   ENGINE=docker|podman      runs and saves the image
#   IMAGE=mitosis:<version>   its name
#   BUNDLE=model              the model bundle that is baked in, mounted in the test and exported; build.sh takes one from
#                             model/ or runs/default/ only, where .dockerignore lets the builder see it
#   DIST=dist                 where test.sh notes what it passed, and export.sh writes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
script="$(basename "$0")"
die() { echo "$script: $*" >&2; exit 1; }

# shellcheck disable=SC2034 # for the scripts that source this
dist="${DIST:-dist}"
engine="${ENGINE:-docker}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
image="${IMAGE:-mitosis:$version}"
bundle="${BUNDLE:-model}"
bundle="${bundle#"$PWD"/}" # the builder knows no other paths than those from here
bundle="${bundle#./}"
command -v "$engine" >/dev/null || die "$engine is not installed; install it, or set ENGINE=docker or ENGINE=podman"
[ -f "$bundle/bundle.yaml" ] || die "$bundle/bundle.yaml is missing; restore $bundle/ or train a bundle with 'make train'"
if [ "$script" = build.sh ]; then # what is only mounted or exported may lie anywhere
  case "$bundle/" in
    *../*) seen="" ;;
    model/* | runs/default/*) seen=1 ;;
    *) seen="" ;;
  esac
  [ -n "$seen" ] || die "BUNDLE=$bundle: .dockerignore shows the builder model/ and runs/default/ only; copy the bundle there"
fi

inspect() { "$engine" image inspect --format "$1" "$image" 2>/dev/null || die "there is no image $image; run ./build.sh"; }

# What a test is valid for: this image with this bundle.
fingerprint() { inspect '{{.Id}}' && (cd "$bundle" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
