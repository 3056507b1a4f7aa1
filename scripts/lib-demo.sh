# lib-demo.sh -- what scripts/demo and scripts/demo-vm have in common; both source it after setting work, the demo's directory.
# shellcheck shell=bash

demo=${0##*/}
export POWERNODE_KEY_PASSWORD=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold= dim= plain=; fi
step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; pause; }
say() { printf '%s\n' "$*"; }
# shown COMMAND...: prints a command as it would be typed in the demo's directory, past any pipe.
exec 3>&1
shown() {
  local a line=
  for a; do case $a in *' '*) line+=" '$a'" ;; *) line+=" ${a//$work\//}" ;; esac; done
  printf '%s$%s%s\n' "$dim" "$line" "$plain" >&3
}
run() { shown "$@"; "$@"; }
pause() { if [ -t 0 ] && [ -z "${CI:-}" ]; then sleep 1.5; fi; }
die() { printf '%s: %s\n' "$demo" "$*" >&2; exit 1; }
# milliseconds since the epoch.
now() { echo $((${EPOCHREALTIME/./} / 1000)); }
# timed NAME COMMAND...: runs it and remembers how long it took, for the table at the end.
timings=()
timed() {
  local name=$1 from
  from=$(now)
  shift
  run "$@"
  timings+=("$name|$(($(now) - from))")
}

# start_platform LISTEN: starts the platform, with its data in $work/platform; sets platform_pid, url and registry.
platform_pid=
start_platform() {
  powernode-platform serve --data "$work/platform" --listen "$1" >"$work/platform.log" 2>&1 &
  platform_pid=$!
  export POWERNODE_CONFIG=$work/platform/operator.json
  for _ in $(seq 1 100); do [ -s "$POWERNODE_CONFIG" ] && break; kill -0 "$platform_pid" 2>/dev/null || die "the platform ended"; sleep 0.1; done
  url=$(jq -r .url "$POWERNODE_CONFIG")
  registry=${url#https://}
  jq -r .ca_pem "$POWERNODE_CONFIG" >"$work/ca.pem"
  curl -fsS --retry 20 --retry-connrefused --retry-delay 1 --cacert "$work/ca.pem" "$url/healthz" >/dev/null
  say "listening on $url"
}
stop_platform() {
  [ -n "$platform_pid" ] && kill "$platform_pid" 2>/dev/null && wait "$platform_pid" 2>/dev/null || true
  platform_pid=
}
# platform_log: the end of its log, for a demo that failed.
platform_log() { [ -s "$work/platform.log" ] && { echo '-- the end of the platform'"'"'s log:'; tail -n 15 "$work/platform.log"; } >&2 || true; }

# build NAME VERSION ARGUMENT...: builds the example module into $work/modules/NAME.
build() { timed "build $1" powernode module build --manifest "examples/modules/$1/manifest.yaml" --version "$2" "${@:3}" --layout "$work/modules/$1"; }
publish() { timed "publish $1" powernode module publish "$work/modules/$1" --key "$work/release.key" "${@:2}"; }
# trust_policy LINE...: who signs what the node may run, with further lines, in $work/trust.
trust_policy() {
  mkdir -p "$work/trust/keys"
  cp "$work/release.pub" "$work/trust/keys/"
  cat >"$work/trust/trust.yaml" <<END
schema_version: 1
$(printf '%s\n' "$@")
rules:
  - name: release
    images: ["$registry/modules/*"]
    keys:
      - file: keys/release.pub
END
}
# in_step FILTER: waits until what the platform says of its first node passes a jq filter.
in_step() {
  for _ in $(seq 1 "${2:-50}"); do
    powernode node list --output json | jq -e ".nodes[0] | $1" >/dev/null && return 0
    sleep 0.2
  done
  return 1
}
