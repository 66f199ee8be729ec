#!/usr/bin/env bash
# Runs shellcheck over the scripts of this repository and over those that the program
# generates for machines: one of each kind that the vectors of pkg/translate have.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v shellcheck >/dev/null; then
	printf 'error: shellcheck is missing\nnext: apt-get install shellcheck\n' >&2
	exit 1
fi
git ls-files -co --exclude-standard -- '*.sh' .ci/run | xargs shellcheck

# What is not asked of generated scripts:
excluded=(
	SC1010 # the word "done" in what is printed
	SC1091 # files of the machine, which are not here
	SC2015 # A && B || C: meant
	SC2016 # $ in the single quotes of an inner shell: meant
	SC2041 # a loop over a list that has one element this time
	SC2043 # likewise
	SC2086 # words without quotes: commands in variables, numbers and names of checked form
	SC2116 # $(echo $x): takes newlines out of a list
)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! go test -count=1 ./pkg/translate -run '^TestScripts$' -args -scripts "$dir" >"$dir/.log" 2>&1; then
	cat "$dir/.log" >&2
	exit 1
fi
scripts=("$dir"/*.sh "$dir"/*.bash)
if [ ${#scripts[@]} -lt 50 ]; then
	echo "error: only ${#scripts[@]} generated scripts" >&2
	exit 1
fi
(
	IFS=,
	shellcheck --exclude="${excluded[*]}" "${scripts[@]}"
)
echo "shellcheck: ${#scripts[@]} generated scripts"
