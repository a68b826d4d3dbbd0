#!/usr/bin/env bash
# A Ray cluster of several hosts on one Linux machine, to test what happens when hosts die.
#
#   sudo -E cluster/hosts.sh up 3 && sudo -E cluster/hosts.sh start
#   knife submit --address "http://$(cluster/hosts.sh address 1):8265" -- run demo scale.workers=2 store=/tmp/store
#   sudo -E cluster/hosts.sh kill 2
#   sudo -E cluster/hosts.sh down
#
# Each host is a network namespace with its own address and name, on a bridge that only this machine
# reaches. The hosts share its files, as if all were in one shared folder, and its CPUs. Needs root,
# iproute2, util-linux, and `ray` on the path (`source .venv/bin/activate`).
#
#   up N                  make hosts 1 … N
#   start [HOST] [--cpus N] [--own-folder PATH]
#                         Ray on a host, or on all: the head on host 1, raylets on the others, each
#                         with N CPUs (1). At PATH the host has its own, empty folder.
#   address HOST          its address
#   exec HOST COMMAND…    run a command on it
#   kill HOST             SIGKILL to every process on it, like a power failure; `start` brings it back
#   cut HOST, heal HOST   disconnect its network from all others, silently; reconnect it
#   down                  stop and remove all hosts, including what a crash left behind
#
# KNIFE_HOSTS is the prefix of the hosts' names (knife), unique for each cluster of a machine.
set -euo pipefail

# A cut of 30 s, and TCP's pauses after it, must not end a connection or a host: by default, Ray
# closes a connection after 30 s of silence and gives up a host after 65. Here a host is lost after
# 72 s of silence, or after 8 if it refuses connections.
export RAY_grpc_keepalive_timeout_ms=${RAY_grpc_keepalive_timeout_ms:-80000}
export RAY_health_check_period_ms=${RAY_health_check_period_ms:-1000}
export RAY_health_check_timeout_ms=${RAY_health_check_timeout_ms:-8000}
export RAY_health_check_failure_threshold=${RAY_health_check_failure_threshold:-8}

name=${KNIFE_HOSTS:-knife}
bridge="$name-br"

fail() {
  echo "hosts.sh: $*" >&2
  exit 2
}

hosts() { ip netns list | awk '{print $1}' | grep -E "^$name-[0-9]+\$" | sort -t- -k2 -n || true; }

# The address of the bridge ends in 1, that of host N in 10 + N.
subnet() { ip -o -4 address show dev "$bridge" | sed -E 's/.*inet ([0-9.]+)\.1\/.*/\1/'; }

address() {
  ip link show "$bridge" >/dev/null 2>&1 || fail "no hosts yet: up N creates them"
  echo "$(subnet).$((10 + $1))"
}

known() {
  [[ ${1:-} =~ ^[0-9]+$ ]] || fail "HOST must be a number, but got '${1:-}'"
  [[ " $(hosts | xargs) " == *" $name-$1 "* ]] || fail "no host $1; the hosts are: $(hosts | xargs)"
}

free_subnet() {
  local third routes
  # Read whole: `ip | grep -q` fails where grep has found its line before ip has written its last.
  routes=$(ip route show table all)
  for third in $(seq 0 255); do
    [[ $routes == *"10.73.$third."* ]] || { echo "10.73.$third" && return; }
  done
  fail "no free subnet in 10.73.0.0/16"
}

up() {
  local number=${1:-} subnet host n
  [[ $number =~ ^[1-9][0-9]?$ ]] || fail "up N: N must be 1 to 99, but got '$number'"
  [[ ${#bridge} -le 12 ]] || fail "KNIFE_HOSTS: must be at most 9 letters, but got '$name'"
  [[ -z $(hosts) ]] || fail "hosts exist already: $(hosts | xargs); down removes them"
  # Two clusters that start at the same time must not use the same subnet.
  mkdir -p /etc/netns
  exec 9</etc/netns
  flock 9
  subnet=$(free_subnet)
  ip link add "$bridge" type bridge
  ip address add "$subnet.1/24" dev "$bridge"
  ip link set "$bridge" up
  exec 9<&-
  for n in $(seq "$number"); do
    host="$name-$n"
    mkdir -p "/etc/netns/$host"
    # No name server, and its own names: otherwise libraries resolve the host's name to 127.0.0.1.
    : >"/etc/netns/$host/resolv.conf"
    echo "127.0.0.1 localhost" >"/etc/netns/$host/hosts"
    for other in $(seq "$number"); do
      echo "$subnet.$((10 + other)) $name-$other" >>"/etc/netns/$host/hosts"
    done
    ip netns add "$host"
    ip link add "$host" type veth peer name eth0 netns "$host"
    ip link set "$host" master "$bridge" up
    ip -n "$host" link set lo up
    ip -n "$host" address add "$subnet.$((10 + n))/24" dev eth0
    ip -n "$host" link set eth0 up
  done
}

# Replace this process with a command on a host.
run() {
  local host="$name-$1"
  shift
  # shellcheck disable=SC2016  # the inner shell expands them
  exec ip netns exec "$host" unshare --uts sh -c 'hostname "$1"; shift; exec "$@"' sh "$host" "$@"
}

start_one() {
  local n=$1 cpus=$2 own=$3 words
  words=(ray start "--node-ip-address=$(address "$n")" "--num-cpus=$cpus" --disable-usage-stats
    "--temp-dir=/tmp/$name-$n" --object-store-memory=80000000)
  if [[ $n == 1 ]]; then
    words+=(--head --port=6379 "--dashboard-host=$(address 1)")
  else
    words+=("--address=$(address 1):6379")
  fi
  if [[ -n $own ]]; then
    mkdir -p "$own"
    # shellcheck disable=SC2016
    words=(unshare --mount sh -c 'mount -t tmpfs tmpfs "$1"; shift; exec "$@"' sh "$own" "${words[@]}")
  fi
  local log
  log=$(mktemp "/tmp/$name-$n.XXXXXX")
  (run "$n" "${words[@]}") </dev/null >"$log" 2>&1 || fail "Ray on host $n: $(cat "$log")"
  rm "$log"
}

start() {
  local host='' cpus=1 own='' n
  while [[ $# -gt 0 ]]; do
    case $1 in
      --cpus) cpus=${2:?} && shift 2 ;;
      --own-folder) own=${2:?} && shift 2 ;;
      *) host=$1 && shift ;;
    esac
  done
  if [[ -n $host ]]; then
    known "$host"
    start_one "$host" "$cpus" "$own"
    return
  fi
  [[ -n $(hosts) ]] || fail "no hosts yet: up N creates them"
  start_one 1 "$cpus" "$own"
  local waiting=()
  for n in $(hosts | sed "s/$name-//" | tail -n +2); do
    start_one "$n" "$cpus" "$own" &
    waiting+=($!)
  done
  for n in "${waiting[@]}"; do wait "$n"; done
}

kill_all() {
  local pids
  # Repeat until no process is left that could start another one.
  while pids=$(ip netns pids "$1" 2>/dev/null) && [[ -n $pids ]]; do
    # shellcheck disable=SC2086  # one word a process
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

down() {
  local host
  for host in $(hosts); do
    kill_all "$host"
    ip netns delete "$host"
    ip link delete "$host" 2>/dev/null || true
    rm -rf "/etc/netns/$host" "/tmp/${host:?}"
  done
  ip link delete "$bridge" 2>/dev/null || true
}

command=${1:-}
shift || true
case $command in
  up) up "$@" ;;
  start) start "$@" ;;
  address) known "${1:-}" && address "$1" ;;
  exec) known "${1:-}" && run "$@" ;;
  kill) known "${1:-}" && kill_all "$name-$1" ;;
  # Like a disabled switch port: cables and addresses look fine, but nothing gets through.
  cut) known "${1:-}" && bridge link set dev "$name-$1" state 0 ;;
  heal) known "${1:-}" && bridge link set dev "$name-$1" state 3 ;;
  down) down ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
