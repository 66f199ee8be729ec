#!/usr/bin/env bash
# Runs every fuzz target of the repository, one after the other, for the given
# time each (default 30s). Targets are found, not listed: a new one is run too.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}

targets=$(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort)
if [ -z "$targets" ]; then
	echo "error: no fuzz target found" >&2
	exit 1
fi
while IFS=: read -r file func; do
	name=${func#func }
	echo "== $name ($(dirname "$file"), $time)"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$(dirname "$file")"
done <<<"$targets"
