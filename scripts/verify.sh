#!/usr/bin/env bash
# Fails if a file that follows from others is out of date. It works on a copy of
# the tree, so that a check never edits what it checks.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files -co --exclude-standard -- '*.go' | xargs gofmt -s -l)
if [ -n "$unformatted" ]; then
	printf 'error: not formatted:\n%s\nnext: make generate\n' "$unformatted" >&2
	exit 1
fi

if ! go mod tidy -diff; then
	printf 'error: go.mod or go.sum is not tidy\nnext: make generate\n' >&2
	exit 1
fi
go mod verify

if git grep -q --untracked '^//go:generate ' -- '*.go'; then
	copy=$(mktemp -d)
	trap 'rm -rf "$copy"' EXIT
	git ls-files -co --exclude-standard -z | while IFS= read -r -d '' f; do
		if [ -e "$f" ]; then printf '%s\0' "$f"; fi
	done | tar --null -T - -cf - | tar -xf - -C "$copy"
	cp -r "$copy" "$copy.new"
	trap 'rm -rf "$copy" "$copy.new"' EXIT
	(cd "$copy.new" && go generate ./...)
	if ! diff -ru "$copy" "$copy.new"; then
		printf 'error: generated files are out of date\nnext: make generate\n' >&2
		exit 1
	fi
fi
echo "verify: nothing to change"
