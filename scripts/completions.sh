#!/usr/bin/env bash
# Writes the shell completions into the given folder, for the release archives.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-completions}
mkdir -p "$dir"
for shell in bash zsh fish powershell; do
	go run ./cmd/capplunder completion "$shell" >"$dir/capplunder.$shell"
done
