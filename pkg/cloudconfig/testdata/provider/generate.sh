#!/usr/bin/env bash
# Makes the bootstrap data of one folder anew with the code of that version of Cluster
# API, which it fetches from the Go module proxy and compiles in a temporary folder.
#   ./generate.sh v1.14.2
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1
module=sigs.k8s.io/cluster-api
inside=bootstrap/kubeadm/generate # the packages are internal in most versions
case $version in
v1.14*) inside='' ;;
v0.1.*) module=sigs.k8s.io/cluster-api-bootstrap-provider-kubeadm inside=generate ;;
esac
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
cd "$tmp"
export GOFLAGS=-mod=mod GOWORK=off
if [ -n "$inside" ]; then
	source=$(go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	cp -r "$source/." .
	chmod -R u+w .
else
	go mod init example.com/generate
	go get "$module@$version" "$module/api@$version"
fi
case $version in
v0.1.*) go get github.com/json-iterator/go@v1.1.12 ;; # the one of its time does not run with the Go of today
esac
mkdir -p "./$inside"
cp "$here/$version/main.go" "./$inside/"
go run "./$inside" "$here/$version" "$here/$version"
