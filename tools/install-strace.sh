#!/bin/sh
# Installs strace, which tests of faults need, on a bare Debian too; without it those tests say that they were skipped.
set -eu
if command -v strace >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q >&2 && apt-get install -y -q strace >&2; then
    exit 0
fi
echo "hint: tests of faults need strace; install it (\`sudo apt-get install strace\`) and run make again" >&2
