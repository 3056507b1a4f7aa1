#!/usr/bin/env bash
# fleet.sh -- loads a platform with NODES simulated nodes: heartbeats every 30 s and calls that wait for tasks, each over a connection of
# its own, by TLS 1.3 with certificates, on loopback. Then it raises the rate of the heartbeats until their 99th percentile is beyond 50 ms.
#
#   bench/fleet.sh [sqlite|postgres|replicas]...      all three by default; replicas is two platforms over one PostgreSQL
#
# NODES is 10000 by default, FOR how long the rhythm of 30 s is measured (90s), RATES the higher rates in heartbeats per second, STEP how long
# each is measured (20s), BOUND another bound of the percentile (50ms), TASKS how many tasks a second the operator asks for (5). DIR is where data are kept (not on a tmpfs). PROFILE=DIR
# writes profiles of the platform's processor time to DIR.
#
# Each node takes a descriptor of the platform for its heartbeats, and one more while it waits for tasks: as many nodes wait as `ulimit -n` lets them.
# PostgreSQL's programs come from scripts/setup; the server has its own default settings, and syncs.
set -euo pipefail
cd "$(dirname "$0")/.."
nodes=${NODES:-10000}
rates=${RATES:-500 1000 1500 2000 2500 3000 3500 4000 5000 6000}
work=$(mktemp -d "${DIR:-/var/tmp}/bench-fleet-XXXXXX")
chmod 755 "$work"
running=()
finish() {
  [ ${#running[@]} = 0 ] || { kill "${running[@]}" 2>/dev/null || :; wait "${running[@]}" 2>/dev/null || :; }
  running=()
}
trap 'finish; rm -rf "$work"' EXIT
ulimit -n "$(ulimit -Hn)"
CGO_ENABLED=0 go build -o "$work/" ./bench/fleet ./cmd/powernode-platform

# platform NAME [FLAG]...: starts a platform over the data directory NAME, and sets url to HOST:PORT and pid.
platform() {
  local name=$1 program=("$work/powernode-platform")
  shift
  [ -z "${PROFILE:-}" ] || program=("$work/fleet" profile "$PROFILE/$kind-$name.pprof")
  "${program[@]}" serve --data "$work/$name" --listen 127.0.0.1:0 --log-format json "$@" 2>"$work/$name.log" &
  pid=$!
  running+=("$pid")
  url=
  until [ -n "$url" ]; do
    kill -0 "$pid" || { cat "$work/$name.log" >&2; exit 1; }
    sleep 0.1
    url=$(sed -n 's/.*"msg":"serving".*"listen":"\([^"]*\)".*/\1/p' "$work/$name.log")
  done
}

# postgres: starts a server over an empty database, and sets database to its URL and server to its process.
postgres() {
  local bin as=()
  bin=$(dirname "$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1)")
  [ -x "$bin/initdb" ] || { echo "bench/fleet.sh: run scripts/setup first" >&2; exit 1; }
  rm -rf "$work/postgres"
  mkdir "$work/postgres"
  if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses root
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
    chown postgres "$work/postgres"
  fi
  "${as[@]}" "$bin/initdb" -D "$work/postgres/data" -U platform -A trust -E UTF8 --locale=C --no-instructions >/dev/null
  "${as[@]}" "$bin/postgres" -D "$work/postgres/data" -k "$work/postgres" -c listen_addresses= >"$work/postgres.log" 2>&1 &
  server=$!
  running+=("$server")
  for _ in $(seq 600); do
    "$bin/pg_isready" -q -h "$work/postgres" -U platform -d postgres && break
    sleep 0.1
  done
  "$bin/createdb" -h "$work/postgres" -U platform fleet
  database="postgres://platform@/fleet?host=$work/postgres"
}

# load TITLE FLAG...: runs the fleet.
load() {
  echo
  echo "== $1: $(nproc) processors, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
  shift
  "$work/fleet" run -credentials "$work/credentials" -for "${FOR:-90s}" -step "${STEP:-20s}" -tasks "${TASKS:-5}" -bound "${BOUND:-50ms}" -rates "$rates" ${WAITING:+-waiting "$WAITING"} "$@"
}

for kind in "${@:-sqlite postgres replicas}"; do
  for kind in $kind; do
    rm -rf "$work/one" "$work/two"
    case $kind in
    sqlite)
      "$work/fleet" fill -data "$work/one" -nodes "$nodes" -credentials "$work/credentials"
      platform one
      load "one platform over SQLite" -platform "$url,$pid" -operator "$work/one/operator.json"
      ;;
    postgres)
      postgres
      "$work/fleet" fill -data "$work/one" -database "$database" -nodes "$nodes" -credentials "$work/credentials"
      platform one --database "$database"
      load "one platform over PostgreSQL" -platform "$url,$pid" -operator "$work/one/operator.json" -database-pid "$server"
      ;;
    replicas)
      postgres
      head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/secret"
      chmod 600 "$work/secret"
      "$work/fleet" fill -data "$work/one" -database "$database" -shared-secret-file "$work/secret" -nodes "$nodes" -credentials "$work/credentials"
      platform one --database "$database" --shared-secret-file "$work/secret"
      first=$url,$pid
      platform two --database "$database" --shared-secret-file "$work/secret"
      load "two platforms over PostgreSQL" -platform "$first" -platform "$url,$pid" -operator "$work/one/operator.json" -database-pid "$server"
      ;;
    *)
      echo "bench/fleet.sh: sqlite, postgres or replicas, not $kind" >&2
      exit 2
      ;;
    esac
    finish
  done
done
