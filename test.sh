#!/usr/bin/env bash
# Builds the image and runs it as Grand Challenge does on the drawn case: no network, limited memory, read-only root, input
# and model. Compares with test/expected and checks the schema and the evaluator's rules. Settings: see image.sh, and
#   SKIP_BUILD=1                       test the image that is there; otherwise build.sh's settings hold too
#   MEMORY=4g                          the container's memory limit
#   RUN_ARGS="--runtime runc"          further arguments for `run`, split at blanks
source "$(dirname "${BASH_SOURCE[0]}")/image.sh"
rm -f "$dist/tested" # what passed before says nothing of what fails now
[ -n "${SKIP_BUILD:-}" ] || ./build.sh
tested="$(fingerprint)"

read -ra further <<<"${RUN_ARGS:-}"
isolated=(run --rm --network none --memory "${MEMORY:-4g}" --read-only --tmpfs /tmp ${further[@]+"${further[@]}"})
isolated+=(-e MITOSIS_API_METHOD=exec) # one that is built to serve would wait for a case for ever
output="$(mktemp -d)"
trap 'rm -rf "$output"' EXIT
chmod 777 "$output" # the image's own user writes there
chmod a+rx test 2>/dev/null || true # and reads here
chmod -R a+rX test/input test/expected test/check_output.py "$bundle" 2>/dev/null || true

echo "running $image on test/input/interf0"
"$engine" "${isolated[@]}" -v "$PWD/test/input/interf0:/input:ro" -v "$output:/output" \
  -v "$(realpath "$bundle"):/opt/ml/model:ro" "$image" || die "the container failed; its last line on stderr says why"
"$engine" "${isolated[@]}" -v "$output:/found:ro" -v "$PWD/test:/test:ro" -v "$(realpath "$bundle"):/opt/ml/model:ro" --entrypoint /opt/venv/bin/python \
  "$image" /test/check_output.py /found/mitotic-figures.json /test/expected/mitotic-figures.json ||
  die "the output is not what test/expected and the evaluator ask for ('make expected' takes it over, for new weights)"

mkdir -p "$dist"
echo "$tested" >"$dist/tested"
echo "passed: $image; ./export.sh may save it"
