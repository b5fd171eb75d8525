#!/bin/sh
# Checks the dependency graph against deny.toml, and says which part could not be checked.
set -eu
cd "$(dirname "$0")/../.."

version=0.20.2
tool=${XDG_CACHE_HOME:-$HOME/.cache}/nodeagent/tools/cargo-deny-$version
if [ ! -x "$tool/bin/cargo-deny" ]; then
    echo "deny: building cargo-deny $version, once: a few minutes" >&2
    # For the machine it runs on, not for the target that this package is built for.
    host=$(rustc --version --verbose | sed -n 's/^host: //p')
    cargo install --quiet --locked --version $version --target "$host" --root "$tool" \
        --target-dir "$tool/build" cargo-deny
    rm -rf "$tool/build"
fi

deny() { "$tool/bin/cargo-deny" --locked "$@"; }
if deny fetch db >/dev/null 2>&1; then
    deny check
else
    deny --offline check licenses bans sources
    echo "deny: NOT CHECKED: advisories (the advisory database cannot be reached); licences, bans and sources were" >&2
fi
