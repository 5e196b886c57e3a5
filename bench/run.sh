#!/bin/sh
# Times tensorhold beside its peers: `bench/run.sh [--wheel FILE] [--only ROW] [--samples N] [--record WHAT] [--list]`.
# Sets up what it needs: bench/.venv and bench/.peers, the wheel (built in release where none is given), the Rust programs.
set -eu
cd "$(dirname "$0")/.."
bin=bench/.venv/bin

wheel=
if [ "${1-}" = --wheel ]; then
    wheel=$2
    shift 2
fi

if ! cmp -s bench/requirements.txt bench/.venv/requirements.txt; then
    [ -x $bin/python ] || tools/make-venv.sh "${PYTHON:-python3}" bench/.venv
    $bin/python -m pip install --quiet -r bench/requirements.txt
    # What cannot be installed beside its own release; it uses the frameworks of bench/.venv.
    rm -rf bench/.peers
    $bin/python -m pip install --quiet --no-deps --target bench/.peers/safetensors-0.9.0rc1 safetensors==0.9.0rc1
    cp bench/requirements.txt bench/.venv/
fi
if [ -z "$wheel" ]; then
    rm -rf bench/target/wheel
    $bin/maturin build --quiet --release --manifest-path python/Cargo.toml --out bench/target/wheel
    wheel=$(echo bench/target/wheel/*.whl)
fi
$bin/python -m pip install --quiet --no-deps --force-reinstall "$wheel"
cargo build --quiet --release --locked --manifest-path bench/rust/Cargo.toml --target-dir bench/target
cargo build --quiet --release --locked --package tensorhold-double --target-dir bench/target
# Peers look for a runtime by this name.
mkdir -p bench/target/double
cp bench/target/release/libtensorhold_double.so bench/target/double/libcudart.so.13

PYTHONPATH=bench exec $bin/python -m tensorhold_bench "$@"
