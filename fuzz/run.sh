#!/bin/sh
# Fuzzes every target for so many seconds, as many at once as there are processors, and fails on any find.
#     fuzz/run.sh SECONDS [TARGET…]
set -eu
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/nodeagent
host=$(rustc --version --verbose | sed -n 's/^host: //p')

# One target: what xargs calls below.
if [ "$1" = --one ]; then
    seconds=$2 program=$3
    target=${program##*/}
    seen=$cache/fuzz/corpus/$target
    finds=fuzz/artifacts/$target
    log=$cache/fuzz/$target.log
    mkdir -p "$seen" "$finds"
    # The first directory takes what is new; the committed one is only read.
    status=0
    "$program" "$seen" "fuzz/corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$finds/" >"$log" 2>&1 || status=$?
    stat() { sed -n "s/^stat::$1: *//p" "$log"; }
    if [ $status != 0 ]; then
        echo "fuzz: $target FOUND SOMETHING (see $log):" >&2
        grep -E '^(thread|assertion|  (left|right):|==|SUMMARY|Test unit written|.*panicked at)' "$log" | head -n 12 >&2
        exit 1
    fi
    printf '%-14s %12s executions %9s/s\n' "$target" "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)"
    exit
fi

seconds=$1
shift
targets=${*:-$(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"/\1/p' fuzz/Cargo.toml)}

version=0.13.1
tool=$cache/tools/cargo-fuzz-$version
if [ ! -x "$tool/bin/cargo-fuzz" ]; then
    echo "fuzz: building cargo-fuzz $version, once: a minute" >&2
    cargo install --quiet --locked --version $version --target "$host" --root "$tool" \
        --target-dir "$tool/build" cargo-fuzz
    rm -rf "$tool/build"
fi

# Named like the target directories of .ci/run, which removes old ones.
key=$( (cat fuzz/Cargo.lock; rustc --version --verbose) | sha256sum | cut -c 1-16)
built=$cache/target-fuzz-$key
mkdir -p "$built"
touch "$built"
cargo fetch --quiet --locked --manifest-path fuzz/Cargo.toml
# Without a sanitizer: this program forbids unsafe code, and OpenSSL's C would not be instrumented anyway. cargo-fuzz
# asks for a nightly compiler's options; the stable one has them, too.
started=$(date +%s)
(cd fuzz && RUSTC_BOOTSTRAP=1 "$tool/bin/cargo-fuzz" fuzz build --sanitizer none --target "$host" --target-dir "$built")
echo "fuzz: built in $(($(date +%s) - started)) s; $seconds s for each target" >&2

# shellcheck disable=SC2086 # one word per target
printf "$built/$host/release/%s\n" $targets | xargs -P "$(nproc)" -I '{}' fuzz/run.sh --one "$seconds" '{}'
