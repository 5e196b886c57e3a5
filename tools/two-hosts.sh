#!/bin/sh
# Loads a checkpoint with two ranks on two hosts, which are network namespaces with a cable between
# them, and kills one half-way: the other has to end with an error that names it.
# Usage: tools/two-hosts.sh [python]; needs root.
set -eu
python=${1:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
one=tensorhold-a-$$
two=tensorhold-b-$$

clean() {
    ip netns delete "$one" 2>/dev/null || true
    ip netns delete "$two" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean EXIT INT TERM

if ! ip netns add "$one" 2>"$folder/refused"; then
    echo "two-hosts: NOT RUN, network namespaces are refused here: $(cat "$folder/refused")" >&2
    exit 77
fi
ip netns add "$two"
ip link add veth0 netns "$one" type veth peer name veth0 netns "$two"
ip -n "$one" address add 10.77.0.1/24 dev veth0
ip -n "$two" address add 10.77.0.2/24 dev veth0
for host in "$one" "$two"; do
    ip -n "$host" link set lo up
    ip -n "$host" link set veth0 up
done

run() { # host, rank, mode, what becomes of rank 1
    ip netns exec "$1" env MASTER_ADDR=10.77.0.1 MASTER_PORT=29510 WORLD_SIZE=2 RANK="$2" \
        GLOO_SOCKET_IFNAME=veth0 PYTHONPATH="$here/python/tests:${PYTHONPATH:-}" \
        "$python" "$here/python/tests/two_hosts.py" "$folder" "$3" "$4"
}

for mode in broadcast scatter node; do
    for fate in lives killed; do
        # The one that keeps the store is not the one that dies.
        run "$two" 1 "$mode" "$fate" &
        other=$!
        run "$one" 0 "$mode" "$fate"
        wait "$other" || [ "$fate" = killed ]
    done
done
echo "two-hosts: ok"
