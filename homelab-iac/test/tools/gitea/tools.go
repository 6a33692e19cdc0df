//go:build tools

// Package gitea names the program that setup.sh builds, so that go.mod keeps it.
package gitea

import _ "code.gitea.io/gitea"
