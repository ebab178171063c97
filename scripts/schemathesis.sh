#!/usr/bin/env bash
# Requests made up from the served /openapi.json, by schemathesis from PyPI: no server error, no answer that the
# document does not promise.
#
#   scripts/schemathesis.sh [EXAMPLES]     examples per operation; default 85,
#                                          which comes to some 1,000 beside the systematic ones
#
# All default checks run but positive_data_acceptance: a schema cannot say that a series must ascend. Instead every
# 400 must carry a code of the contract, and at least one example in five must be answered 200
# (scripts/schemathesis_hooks.py counts both). Needs python 3; schemathesis goes to a cache outside the repository
# (LAPWING_CACHE, else ~/.cache/lapwing). LAPWING_BIN names the binary (default: target/debug/lapwing, built).
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.32.5
examples=${1:-85}
cache=${LAPWING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lapwing}/schemathesis-$version
if [ ! -e "$cache/complete" ]; then
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
    touch "$cache/complete"
fi

# shellcheck source=scripts/api_server.sh
. scripts/api_server.sh
# No project file is read but ours, and nothing is left beside it.
work=$(mktemp -d)
tally=$work/tally
hooks=$PWD/scripts/schemathesis_hooks.py
# Too many points may also be too many bytes, which is not among the statuses that the check expects.
cat >"$work/schemathesis.toml" <<'TOML'
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 413, 415, 422, 428, 429]
TOML
status=0
(cd "$work" && TALLY=$tally SCHEMATHESIS_HOOKS=$hooks "$cache/bin/schemathesis" run "$ENDPOINT/openapi.json" \
    --header "Ocp-Apim-Subscription-Key: $KEY" --exclude-checks positive_data_acceptance \
    --max-examples "$examples" --request-timeout 60 --generation-deterministic --no-color) || status=$?
"$cache/bin/python" - "$tally" <<'PY' || status=1
import collections, sys
statuses = collections.Counter(open(sys.argv[1]).read().split())
total, good = sum(statuses.values()), statuses["200"]
print(f"{total} examples: " + ", ".join(f"{n} of {s}" for s, n in sorted(statuses.items())))
if good * 5 < total:
    sys.exit(f"only {good} of {total} were answered 200; expected one in five")
PY
rm -rf "$work"
exit "$status"
