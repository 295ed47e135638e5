#!/usr/bin/env bash
# Saves what Grand Challenge takes: dist/<name>_<version>_<date>.tar.gz (the image) and dist/model.tar.gz (the bundle).
# Refuses an image that test.sh has not passed. Settings: see build.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
die() { echo "export.sh: $*" >&2; exit 1; }

engine="${ENGINE:-docker}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
image="${IMAGE:-mitosis:$version}"
command -v "$engine" >/dev/null || die "$engine is not installed; set ENGINE=docker or ENGINE=podman"
id="$("$engine" image inspect --format '{{.Id}}' "$image" 2>/dev/null)" || die "there is no image $image; run ./build.sh"
[ "$id" = "$(cat dist/tested-image 2>/dev/null)" ] || die "./test.sh has not passed this image; run it first"

name="$(basename "${image%%:*}")"
archive="dist/${name}_${version}_$(date +%Y-%m-%d).tar.gz"
trap 'rm -f dist/*.partial' EXIT
format=()
[ "$(basename "$engine")" != podman ] || format=(--format docker-archive)
"$engine" save ${format[@]+"${format[@]}"} "$image" | gzip -6 >"$archive.partial"
tar -C model -czf dist/model.tar.gz.partial .
mv "$archive.partial" "$archive"
mv dist/model.tar.gz.partial dist/model.tar.gz
for file in "$archive" dist/model.tar.gz; do
  echo "$file  $(($(stat -c %s "$file") / 1000000)) MB  sha256 $(sha256sum "$file" | cut -d' ' -f1)"
done
