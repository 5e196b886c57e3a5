#!/bin/sh
# Makes a virtual environment, on a bare Debian too, where the package python3-venv is apart.
set -eu
python=$1 folder=$2
if ! "$python" -m venv "$folder" 2>/dev/null; then
    echo "making a virtual environment needs the package python3-venv" >&2
    rm -rf "$folder"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "hint: install it (\`sudo apt-get install python3-venv\`) and run make again" >&2
        exit 1
    fi
    apt-get update -q >&2
    apt-get install -y -q python3-venv >&2
    "$python" -m venv "$folder"
fi
