#!/bin/sh
# Installs what some tests need, on a bare Debian too; without it they say that they did not run: strace, for faults of the system,
# and `ip`, for hosts that are network namespaces.
set -eu
missing=
command -v strace >/dev/null || missing="$missing strace"
command -v ip >/dev/null || missing="$missing iproute2"
if [ -z "$missing" ]; then
    exit 0
fi
# shellcheck disable=SC2086 # a list of packages
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q >&2 && apt-get install -y -q $missing >&2; then
    exit 0
fi
echo "hint: some tests need$missing; install that (\`sudo apt-get install$missing\`) and run make again" >&2
