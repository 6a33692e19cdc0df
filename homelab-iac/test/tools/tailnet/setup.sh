#!/bin/bash
# setup.sh: builds tailscale and tailscaled at the version below, and headscale at the one of go.mod, into ~/.cache/homelab/tailnet. With them
# there, that is all it does. Four minutes cold. headscale stands in for Tailscale's control server; it needs an older tailscale.com as a library than
# the clients are, so they are built apart.
set -euo pipefail

name=tailnet-setup # for lib.sh
tailscale=v1.102.5
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../../../scripts/lib.sh
. "$here/../../../../scripts/lib.sh"

cd "$here"
want=$(cat go.mod go.sum setup.sh | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/tailnet
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -w 3000 9 # another one may be at it
if [ "$(cat "$dir/ready" 2>/dev/null)" != "$want" ]; then
	rm -f "$dir/ready"
	say "building tailscale and tailscaled $tailscale"
	again env CGO_ENABLED=0 GOFLAGS= GOBIN="$dir" timeout 2700 go install -trimpath -ldflags "-s -w" "tailscale.com/cmd/tailscale@$tailscale" "tailscale.com/cmd/tailscaled@$tailscale"
	unit=$(cd / && GOFLAGS='' go mod download -json "tailscale.com@$tailscale" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	install -m 0644 "$unit/cmd/tailscaled/tailscaled.service" "$dir/"
	say "building headscale"
	again env CGO_ENABLED=0 GOFLAGS=-mod=readonly timeout 2700 go build -trimpath -ldflags "-s -w" -o "$dir/headscale" github.com/juanfont/headscale/cmd/headscale
	echo "$want" >"$dir/ready"
fi
