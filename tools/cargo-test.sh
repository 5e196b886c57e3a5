#!/bin/sh
# Runs Rust tests: with cargo-nextest where it is there (doc tests apart, which it does not run), else with cargo.
set -eu
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --no-fail-fast "$@"
    cargo test --doc "$@"
else
    cargo test --no-fail-fast "$@"
fi
