#!/usr/bin/env bash
# Saves what Grand Challenge takes: dist/<name>_<version>_<date>.tar.gz (the image) and dist/model.tar.gz (the bundle).
# Refuses an image or a bundle that test.sh has not passed. Settings: see image.sh.
source "$(dirname "${BASH_SOURCE[0]}")/image.sh"
present="$(fingerprint)"
[ "$present" = "$(cat "$dist/tested" 2>/dev/null)" ] || die "./test.sh has not passed this image with $bundle; run it first"

name="${image##*/}"
name="${name/:/_}"
case "$name" in *"_$version") ;; *) name+="_$version" ;; esac # images of other tags must not overwrite each other's archives
archive="$dist/${name}_$(date +%Y-%m-%d).tar.gz"
trap 'rm -f "$dist"/*.partial' EXIT
format=()
[ "$(basename "$engine")" != podman ] || format=(--format docker-archive)
"$engine" save ${format[@]+"${format[@]}"} "$image" | gzip -6 >"$archive.partial" || die "$engine could not save $image"
# Same bundle, same bytes: no times, no users. What only training reads stays behind.
tar -C "$bundle" --exclude=parameters.safetensors --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a+rX,u+w -c . | gzip -n -6 >"$dist/model.tar.gz.partial"
mv "$archive.partial" "$archive"
mv "$dist/model.tar.gz.partial" "$dist/model.tar.gz"
for file in "$archive" "$dist/model.tar.gz"; do
  echo "$file  $(($(stat -c %s "$file") / 1000000)) MB  sha256 $(sha256sum "$file" | cut -d' ' -f1)"
done
