#!/usr/bin/env bash
# Fetches the resource definitions of the Cluster API versions in capi.sum, checks them
# against the sums there, and leaves those that the tests install in DIR/<version>.
#   tools/kube/capi-crds.sh DIR
set -euo pipefail
sums=$(cd "$(dirname "$0")" && pwd)/capi.sum
mkdir -p "$1"
dir=$(cd "$1" && pwd)
kinds=(clusters machines machinesets machinedeployments)

while read -r module version want; do
	# From a folder that is in no module: these versions are nobody's dependency.
	json=$(cd "$dir" && GOWORK=off GOFLAGS='' go mod download -json "$module@$version")
	field() { sed -n "s/^\t\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" <<<"$json"; }
	if [ "$(field Sum)" != "$want" ]; then
		printf 'error: %s %s has the sum %s, not %s as in %s\n' "$module" "$version" "$(field Sum)" "$want" "$sums" >&2
		exit 1
	fi
	bases=$(field Dir)/config/crd/bases
	if [ ! -d "$bases" ]; then bases=$(field Dir)/core/config/crd/bases; fi # since v1.14
	rm -rf "${dir:?}/$version.new"
	mkdir "$dir/$version.new"
	for kind in "${kinds[@]}"; do
		install -m 644 "$bases/cluster.x-k8s.io_$kind.yaml" "$dir/$version.new/"
	done
	rm -rf "${dir:?}/$version"
	mv "$dir/$version.new" "$dir/$version"
done <"$sums"
