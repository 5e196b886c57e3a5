#!/bin/sh
# Runs every fuzz target for the given number of seconds, from the committed seeds.
set -eu
seconds=$1
cd "$(dirname "$0")/../fuzz"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
# libFuzzer's instrumentation is a compiler flag that the stable toolchain only takes when told to.
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
    mkdir -p "corpus/$target"
    seeds="seeds/$target"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    cargo fuzz run "$target" "corpus/$target" $seeds -- -max_total_time="$seconds" -print_final_stats=1 2>&1 | tee "corpus/$target.log" | grep -E 'stat::number_of_executed_units|panicked|ERROR|SUMMARY' || true
    tail -n 40 "corpus/$target.log" | grep -q 'stat::number_of_executed_units' || { tail -n 60 "corpus/$target.log"; exit 1; }
    ! grep -qE 'SUMMARY:|panicked at|ERROR: ' "corpus/$target.log" || { tail -n 60 "corpus/$target.log"; exit 1; }
    echo "$target: clean for $seconds seconds"
done
