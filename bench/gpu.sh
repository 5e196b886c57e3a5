#!/bin/sh
# Loads onto a CUDA device, timed beside its peers: for a machine without a network, to which the wheels are carried.
#   bench/gpu.sh --fetch WHEEL      where there is one: puts tensorhold's wheel and the peers' into bench/.gpu
#   bench/gpu.sh [--samples N]      on the machine with the device: writes bench/record/DATE-cuda.md, .json and .svg
# PYTHON is the interpreter there, with PyTorch and NumPy; FOR its version, as 3.12, where the wheels are fetched.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=bench/.gpu/wheels

if [ "${1-}" = --fetch ]; then
    mkdir -p $wheels
    cp "$2" $wheels/
    fetch() {
        $python -m pip download --quiet --no-deps --only-binary=:all: --dest "$1" --python-version "${FOR:-3.12}" \
            --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_30_x86_64 "$2"
    }
    for peer in safetensors==0.8.0 fastsafetensors==0.5.0 runai-model-streamer==0.17.0 instanttensor==0.2.2; do
        fetch $wheels $peer
    done
    fetch bench/.gpu safetensors==0.9.0rc1
    exit
fi

site=bench/.gpu/site
rm -rf $site bench/.peers/safetensors-0.9.0rc1
$python -m pip install --quiet --no-index --no-deps --target $site $wheels/*.whl
# What cannot be installed beside its own release.
$python -m pip install --quiet --no-index --no-deps --target bench/.peers/safetensors-0.9.0rc1 bench/.gpu/safetensors-0.9.0rc1-*.whl
nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.max,pcie.link.width.max --format=csv,noheader || true

TENSORHOLD_BENCH_PROGRAM=bench/gpu.sh PYTHONPATH=bench:$site exec $python -m tensorhold_bench --only cuda --record cuda "$@"
