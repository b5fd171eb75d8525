#!/bin/sh
# Proves that a program is static: no interpreter to load it, no library that it needs. `static-check.sh PROGRAM`
set -eu

# Exits with 0 when static, 1 when not; anything unreadable is an error, not a "static".
headers=$(readelf --wide --program-headers --dynamic "$1") || { echo "$1: not a readable ELF file" >&2; exit 2; }
case $headers in *INTERP*) echo "$1 is not static: it names an interpreter" >&2; exit 1 ;; esac
case $headers in *'(NEEDED)'*) echo "$1 is not static: it needs a shared library" >&2; exit 1 ;; esac
case $headers in *LOAD*) ;; *) echo "$1: has nothing to load; is it a program?" >&2; exit 2 ;; esac
echo "$1 is static"
