#!/usr/bin/env bash
# Compares how long `capplunder version` and `kubectl version --client` take, side
# by side in one run, and fails if capplunder needs more than twice as long.
#   scripts/startup.sh bin/capplunder path/to/kubectl [rounds]
set -euo pipefail
capplunder=$1 kubectl=$2 rounds=${3:-31}

# micros COMMAND... prints how many microseconds the command took.
micros() {
	local start=${EPOCHREALTIME/[.,]/}
	"$@" >/dev/null
	echo $((${EPOCHREALTIME/[.,]/} - start))
}
median() { sort -n | sed -n "$((rounds / 2 + 1))p"; }

micros "$capplunder" version >/dev/null # both from a warm page cache
micros "$kubectl" version --client >/dev/null
a='' b=''
for _ in $(seq "$rounds"); do # alternately: what disturbs one disturbs the other
	a+="$(micros "$capplunder" version)"$'\n'
	b+="$(micros "$kubectl" version --client)"$'\n'
done
ours=$(printf '%s' "$a" | median)
theirs=$(printf '%s' "$b" | median)
printf 'startup: capplunder version %d µs, kubectl version --client %d µs (median of %d): %d %%\n' \
	"$ours" "$theirs" "$rounds" $((ours * 100 / theirs))
if [ "$ours" -gt $((2 * theirs)) ]; then
	echo "error: capplunder takes more than twice as long to start as kubectl" >&2
	exit 1
fi
