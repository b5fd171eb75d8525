#!/bin/sh
# Prepares a Debian machine (as root) for building nodeagent and for its lab. Does nothing where all is there already.
set -eu
cd "$(dirname "$0")/../.."

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || fail "the lab makes namespaces and mounts: run this as root"

# A program that tells whether its package is there, and the package.
missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need make make
need gcc gcc
need g++ g++
need perl perl
need pkg-config pkg-config
need musl-gcc musl-tools
need readelf binutils
need curl curl
need git git
need openssl openssl
need debootstrap debootstrap
need systemd-nspawn systemd-container
need nginx nginx-light
need cfssl golang-cfssl
need etcd etcd-server
# The name server that etcd finds its members by.
need dnsmasq dnsmasq-base
need strace strace
# What tests/lab/kubernetes.sh builds with.
need go golang-go
need dpkg-source dpkg-dev
need patch patch
need jq jq
need rsync rsync
need qemu-system-x86_64 qemu-system-x86
need mkfs.ext4 e2fsprogs
need ip iproute2
need nsenter util-linux
need blkid util-linux
# Those for whom `nodeagent cloud-config` makes what it makes.
need ignition-validate ignition
need bsdtar libarchive-tools
need isoinfo genisoimage
[ -x /usr/bin/python3 ] || missing="$missing python3"
for module in yaml jsonschema jinja2 configobj requests oauthlib jsonpatch; do
    ls -d /usr/lib/python3/dist-packages/$module* >/dev/null 2>&1 || missing="$missing python3-$module"
done
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

# apt's package lists also say where the node trees come from.
lists=$(apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' | head -n 1)
update() {
    say "updating the package lists"
    apt-get update --quiet=2
}
if [ -n "$missing" ] || [ ! -e "$lists" ]; then
    update
fi
if [ -n "$missing" ]; then
    say "installing$missing"
    # Installing a web server must not start one: the lab starts its own, in a network of its own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 0755 $policy
    fi
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends $missing >&2
fi

# The real cloud-init, unpacked and not installed: an installed one would take this machine for a new one at its next boot.
cloud_init=${XDG_CACHE_HOME:-$HOME/.cache}/nodeagent/tools/cloud-init
if [ ! -d "$cloud_init" ]; then
    say "unpacking cloud-init"
    rm -rf "$cloud_init.new"
    mkdir -p "$cloud_init.new"
    # Lists that are old name packages that are gone.
    fetch() { apt-get download --quiet=2 cloud-init >&2; }
    (cd "$cloud_init.new" && { fetch || { update && fetch; }; } && dpkg-deb --extract cloud-init_*.deb .)
    mv "$cloud_init.new" "$cloud_init"
fi

if ! command -v cargo >/dev/null; then
    [ ! -x "$HOME/.cargo/bin/cargo" ] || fail "cargo is not in PATH: run \`. $HOME/.cargo/env\` and try again"
    fail "Rust is not installed: install rustup (the package rustup, or from its own site) and a toolchain, then try again"
fi
target=x86_64-unknown-linux-musl
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    say "adding Rust's target $target"
    rustup target add $target
fi
