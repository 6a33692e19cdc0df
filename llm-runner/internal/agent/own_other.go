//go:build !unix

package agent

import (
	"io/fs"
	"os"
)

func keepOwner(*os.Root, string, fs.FileInfo) error { return nil }
