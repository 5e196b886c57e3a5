#!/bin/sh
# Compares the golden vectors of quantized weights with what the packages make that write such weights.
# $1 is a Python with PyTorch, Transformers and MLX; the packages are put under target/oracles.
set -eu
python=$(realpath -s "$1")
root=$(realpath "$(dirname "$0")/..")
tests=$root/crates/tensorhold-quant/tests
target=$root/target/oracles
gptqmodel=gptqmodel-7.7.0

# Installs the packages that a file of requirements names into a folder, once for each state of that file.
install() {
    cmp --silent "$1" "$2/installed.txt" && return
    rm -rf "$2"
    "$python" -m pip install --quiet --no-deps --target "$2" -r "$1"
    cp "$1" "$2/installed.txt"
}

# gptqmodel would be compiled, and needs much to be imported; of it these files alone are used.
install_gptqmodel() {
    [ -e "$target/new/$gptqmodel.txt" ] && [ -e "$target/new/gptqmodel/nn_modules" ] && return
    "$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: \
        --dest "$target" "$(echo "$gptqmodel" | sed 's/-/==/')"
    for file in nn_modules/qlinear/bitsandbytes quantization/dtype utils/model_dequant utils/planar_packing; do
        mkdir -p "$target/new/gptqmodel/$(dirname "$file")"
        tar -xzOf "$target/$gptqmodel.tar.gz" "$gptqmodel/gptqmodel/$file.py" >"$target/new/gptqmodel/$file.py"
    done
    touch "$target/new/gptqmodel/__init__.py" "$target/new/gptqmodel/quantization/__init__.py" \
        "$target/new/gptqmodel/utils/__init__.py"
    echo "HAS_NPU = False" >"$target/new/gptqmodel/utils/torch.py"
    printf 'import logging\n\n\ndef setup_logger():\n    return logging.getLogger("gptqmodel")\n' \
        >"$target/new/gptqmodel/utils/logger.py"
    touch "$target/new/$gptqmodel.txt"
}

install "$tests/oracles/requirements.txt" "$target/new"
install "$tests/oracles/requirements-011.txt" "$target/011"
install_gptqmodel
cd "$tests"
export PYTHONWARNINGS=ignore
"$python" cast_golden.py --check
"$python" codec_golden.py --check
PYTHONPATH=$target/new "$python" codec_golden.py --packages
PYTHONPATH=$target/new "$python" encode_golden.py --check
PYTHONPATH=$target/new "$python" scheme_golden.py --check
PYTHONPATH=$target/new "$python" scheme_golden_more.py --check
PYTHONPATH=$target/011 "$python" scheme_golden.py --check
