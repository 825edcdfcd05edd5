#!/bin/sh
# Records a deployment as a signed change, from the pipeline that made it.
# SEALSTONE_SERVER and SEALSTONE_TRUST say where and whom to believe;
# RECORD_KEY holds the private key of an operator who may record, and no more.
set -eu
: "${SERVICE:?}" "${SCOPE:?}" "${ARTIFACT:?a digest, or the file that was deployed}" "${VERSION:?}" "${RECORD_KEY:?}"

key=$(mktemp) # 0600
trap 'rm -f "$key"' EXIT
printf '%s\n' "$RECORD_KEY" > "$key"

set -- --service "$SERVICE" --scope "$SCOPE" --artifact "$ARTIFACT" --version "$VERSION"
[ -z "${IMAGE:-}" ] || set -- "$@" --image "$IMAGE"
[ -z "${SBOM:-}" ] || set -- "$@" --sbom "$SBOM"
sealstone changes record deploy.finished "$@" --key "$key" -o json
