//go:build tools

// Package tools names the programs that setup.sh builds, so that go.mod keeps them.
package tools

import (
	_ "github.com/restic/restic/cmd/restic"
	_ "github.com/versity/versitygw/cmd/versitygw"
)
