//go:build tools

// Package tailnet names the control server that setup.sh builds, so that go.mod keeps it.
package tailnet

import _ "github.com/juanfont/headscale/cmd/headscale"
