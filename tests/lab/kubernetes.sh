#!/bin/sh
# Builds a cluster's programs from Debian's source package of Kubernetes into DIR: about twelve minutes on two processors.
#
# Debian packages the clients alone, but its source has the servers, and all that they need.
# usage: kubernetes.sh DIR
set -eu

programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubeadm kubectl"
suite=bookworm
version=v1.20.2

mkdir -p "$1"
to=$(cd "$1" && pwd)
work=$to/build
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/source" "$work/go/src/k8s.io"

# Lists of its own: those of the machine stay what they are, and need not have sources.
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(SITE)' 'Created-By: Packages' | sed -n 's/^Debian|Debian|//p' | head -n 1)
[ -n "$mirror" ] || { echo "kubernetes: apt knows no Debian mirror on this machine" >&2; exit 1; }
for kind in deb deb-src; do
    echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$work/sources.list"
apt() {
    apt-get -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" --quiet=2 "$@"
}
apt update
cd "$work/source"
apt source kubernetes
set -- "$work"/source/kubernetes-*/
ln -s "$1" "$work/go/src/k8s.io/kubernetes"

# The vendored reflect2 (1.0.1) calls the runtime's map iteration as it was before Go 1.18, and corrupts the memory of
# whatever prints a map as JSON since then. Debian's own package of it knows both.
reflect2=github.com/modern-go/reflect2
apt download golang-github-modern-go-reflect2-dev
dpkg-deb --extract golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
rm -r "$1vendor/$reflect2"
cp -r "$work/reflect2/usr/share/gocode/src/$reflect2" "$1vendor/$reflect2"

cd "$work/go/src/k8s.io/kubernetes"
export GOPATH="$work/go" GOCACHE="$work/gocache" GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
# Without these the API server lacks the definitions of its own API.
make generated_files
stamp=
for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
    stamp="$stamp -X $package.gitVersion=$version"
done
# shellcheck disable=SC2086 # one package per word
go build -o "$to/" -ldflags "-s -w$stamp" $(printf 'k8s.io/kubernetes/cmd/%s ' $programs)
cd "$to"
rm -rf "$work"
for program in $programs; do
    [ -x "$program" ] || { echo "kubernetes: $program was not built" >&2; exit 1; }
done
