#!/bin/sh
# Reports what this process is and runs: on its start, on each change, and every
# 15 seconds. What it doesn't know it leaves out. Needs curl and sha256sum.
# BUNDLE is the whole digest, if it is known; ONCE=1 sends one report.
#   SERVER=http://127.0.0.1:7460 TARGET=checkout@prod BUNDLE=sha256:... ./report.sh
set -eu
ID=${ID:-$(hostname)-$$} STARTED=$(date -u +%Y-%m-%dT%H:%M:%SZ)
# Dependencies: package URLs, sorted, and the sha256 of their lines.
deps=$(printf '%s\n' pkg:pypi/requests@2.32.0 pkg:pypi/urllib3@2.2.1 | LC_ALL=C sort)
digest=sha256:$(printf '%s\n' "$deps" | sha256sum | cut -d' ' -f1)
list=$(printf '%s\n' "$deps" | sed 's/.*/"&"/' | paste -sd, -)
send() { # $1: further members
	curl -sS --fail-with-body -X POST "$SERVER/v1/instances" \
		-H 'Content-Type: application/json' ${TOKEN:+-H "Authorization: Bearer $TOKEN"} -d @- <<-END
		{"target": "$TARGET", "service.instance.id": "$ID", "process.creation.time": "$STARTED",
		 "service.version": "${VERSION:-}", "vcs.ref.head.revision": "${REVISION:-}", "oci.manifest.digest": "${IMAGE:-}",
		 "sealstone.bundle.digest": "${BUNDLE:-}", "sealstone.mode": "${MODE:-normal}", "sealstone.state": "READY",
		 "sealstone.change.index": ${INDEX:--1}, "sealstone.dependencies.digest": "$digest" $1}
	END
}
report() { # says why the server takes none
	answer=$(send "$1") || { echo "$answer" >&2; return 1; }
}
while :; do
	status=0
	report '' || status=1
	case $answer in
	*'"want"'*) report ", \"sealstone.dependencies\": [$list]" || status=1 ;;
	esac
	[ -z "${ONCE:-}" ] || exit $status
	sleep 15
done
