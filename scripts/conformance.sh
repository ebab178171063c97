#!/usr/bin/env bash
# The published Anomaly Detector SDKs, unmodified, against this server.
#
#   scripts/conformance.sh [SUITE...]      wire python python_legacy node_rest node_core_http node_legacy java; none: all
#
# Starts `lapwing serve` on a free port of the loopback and stops it at the end; with ENDPOINT and KEY set it
# calls that server instead. Needs ../shared, python 3, node 18 and a JDK 17 with maven; the clients go to a
# cache outside the repository (LAPWING_CACHE, else ~/.cache/lapwing) at the first run.
# LAPWING_BIN names the binary (default: target/debug/lapwing, built).
set -euo pipefail
cd "$(dirname "$0")/.."

kit=${LAPWING_SHARED:-../shared}/tools/sdk_conformance
cache=${LAPWING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lapwing}/conformance
[ -x "$kit/run" ] || { echo "conformance.sh: $kit/run is missing; LAPWING_SHARED names the folder that holds it" >&2; exit 1; }
mkdir -p "$cache"

if [ -z "${ENDPOINT:-}" ]; then
    # shellcheck source=scripts/api_server.sh
    . scripts/api_server.sh
fi
CONFORMANCE_ENV=$cache ENDPOINT=$ENDPOINT KEY=${KEY:?with ENDPOINT, KEY is the key of that server} "$kit/run" "$@"
