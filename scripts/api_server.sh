# Sourced by the scripts that call the REST API: starts `lapwing serve` on a free port of the loopback, sets
# ENDPOINT and KEY, and stops it, by its process id, when the script ends.
# shellcheck shell=bash

if [ -z "${LAPWING_BIN:-}" ]; then
    cargo build --quiet --bin lapwing
    LAPWING_BIN=target/debug/lapwing
fi
KEY=conformance-$RANDOM$RANDOM
server_log=$(mktemp)
"$LAPWING_BIN" serve --port 0 "Api__Key1=$KEY" >"$server_log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$server_log"' EXIT
for _ in $(seq 100); do
    ENDPOINT=$(sed -n 's/^Serving \(.*\)\/$/\1/p' "$server_log")
    [ -z "$ENDPOINT" ] || break
    sleep 0.1
done
[ -n "$ENDPOINT" ] || { cat "$server_log" >&2; echo "the server did not start" >&2; exit 1; }
