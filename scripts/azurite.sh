#!/usr/bin/env bash
# Starts and stops Azurite, the storage emulator, for tests and by hand.
#
#   scripts/azurite.sh start DIR [PORT]   blobs on PORT (default 10000), queues on PORT+1, tables on PORT+2;
#                                         prints the blob endpoint, which is what LAPWING_AZURITE wants
#   scripts/azurite.sh stop DIR           ends what was started in DIR, by its process id
#
# DIR holds its data, log and process id. The program is installed once by npm, into AZURITE_HOME (default: a
# folder in the user's cache).
set -euo pipefail

usage() {
  sed -n '2,9p' "$0" | cut -c3-
  exit 2
}

[[ $# -ge 2 ]] || usage
command=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
pid_file=$dir/azurite.pid
home=${AZURITE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lapwing-azurite}

is_running() {
  [[ -f $pid_file ]] && kill -0 "$(cat "$pid_file")" 2>/dev/null
}

case $command in
  start)
    port=${3:-10000}
    if is_running; then
      echo "azurite runs in $dir already" >&2
      exit 1
    fi
    if [[ ! -f $home/node_modules/azurite/package.json ]]; then
      mkdir -p "$home"
      npm install --prefix "$home" --no-audit --no-fund --loglevel=error azurite@3 >&2
    fi
    node "$home/node_modules/azurite/dist/src/azurite.js" \
      --location "$dir/data" --silent --skipApiVersionCheck --disableTelemetry \
      --blobHost 127.0.0.1 --blobPort "$port" \
      --queueHost 127.0.0.1 --queuePort "$((port + 1))" \
      --tableHost 127.0.0.1 --tablePort "$((port + 2))" \
      >"$dir/azurite.log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    for _ in $(seq 300); do
      if ! is_running; then
        echo "azurite ended at once:" >&2
        cat "$dir/azurite.log" >&2
        exit 1
      fi
      if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null &&
        (: <"/dev/tcp/127.0.0.1/$((port + 2))") 2>/dev/null; then
        echo "http://127.0.0.1:$port"
        exit 0
      fi
      sleep 0.1
    done
    echo "azurite did not listen within 30 s; see $dir/azurite.log" >&2
    kill "$(cat "$pid_file")"
    exit 1
    ;;
  stop)
    if is_running; then
      pid=$(cat "$pid_file")
      kill "$pid"
      for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
      done
      kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$pid_file"
    ;;
  *)
    usage
    ;;
esac
