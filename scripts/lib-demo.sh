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
  for _ in $(seq 1 1200); do [ -s "$POWERNODE_CONFIG" ] && break; kill -0 "$platform_pid" 2>/dev/null || die "the platform ended"; sleep 0.1; done
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
# poll_begin FILE...: fetches the page all the time in the background. Each answer has to be one of these files.
poller=
poll_begin() {
  rm -f "$work"/poll.*
  (
    n=0 bad=0
    until [ -e "$work/poll.stop" ]; do
      n=$((n + 1)) same=
      if curl -fsS -m 20 -o "$work/poll.page" "http://127.0.0.1:$port/" 2>>"$work/poll.wrong"; then
        for file; do if cmp -s "$work/poll.page" "$file"; then same=1; fi; done
        [ -n "$same" ] || head -c 500 "$work/poll.page" >>"$work/poll.wrong"
      fi
      [ -n "$same" ] || bad=$((bad + 1))
      sleep 0.02
    done
    echo "$n $bad" >"$work/poll.result"
  ) &
  poller=$!
}
# poll_end: no answer failed meanwhile, nor was anything else.
poll_end() {
  local n bad
  touch "$work/poll.stop"
  wait "$poller" || die 'the polling ended early'
  poller=
  read -r n bad <"$work/poll.result"
  say "the page was fetched $n times meanwhile; $bad failures"
  [ "$bad" = 0 ] || { cat "$work/poll.wrong" >&2; die 'the page was not there all the time'; }
  [ "$n" -ge 10 ] || die 'that is too few to tell'
}
stop_poll() { [ -n "$poller" ] && kill "$poller" 2>/dev/null && wait "$poller" 2>/dev/null || true; poller=; }
# live NAME COMMAND...: runs a changing command of the agent, which has to go live, and remembers how long it took.
live() {
  local name=$1 from
  from=$(now)
  shift
  agent "$@"
  timings+=("live: $name, with the start of the command|$(($(now) - from))")
}
# hello: a module with one more page, which nobody has asked for yet.
hello() {
  mkdir -p "$work/hello/srv/www"
  echo '<h1>Hello, attached a moment ago</h1>' >"$work/hello/srv/www/hello.html"
  printf 'schema_version: 1\nname: hello\n' >"$work/hello.yaml"
  powernode -q module build --manifest "$work/hello.yaml" --version 1.0.0 --from-dir "$work/hello" --layout "$work/modules/hello" >/dev/null
  run powernode -q module publish "$work/modules/hello" --key "$work/release.key" --priority 20 >/dev/null
  run powernode assign demo hello
}
# hello_page CODE: the answer to a request for it.
hello_page() {
  local code
  shown curl "http://127.0.0.1:$port/hello.html"
  code=$(curl -sS -m 20 -o "$work/hello.got" -w '%{http_code}' "http://127.0.0.1:$port/hello.html")
  sed -n '/<h1>/p' "$work/hello.got"
  [ "$code" = "$1" ] || die "the answer is $code, not $1"
}
# live_changes OLD NEW: attach, detach, update to the page NEW, rollback to OLD, and update again, while the page is polled.
# new_version publishes the version of the site with the page NEW; served waits for a page.
live_changes() {
  hello
  poll_begin "$1" "$2"
  agent attach hello --dry-run
  live attach attach hello
  hello_page 200
  live detach detach hello
  hello_page 404
  run powernode unassign demo hello
  new_version
  live update update
  served "$2"
  live rollback rollback
  served "$1"
  live 'update again' update --retry
  served "$2"
  poll_end
  agent generations
}
# in_step FILTER [SECONDS]: waits, 10 s or so long, until what the platform says of its first node passes a jq filter.
in_step() {
  local end=$((SECONDS + ${2:-10}))
  while :; do
    powernode node list --output json | jq -e ".nodes[0] | $1" >/dev/null && return 0
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}
