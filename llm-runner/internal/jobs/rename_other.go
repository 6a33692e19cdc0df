//go:build !linux

package jobs

import "os"

// renameNew renames a file, and fails where the new name is taken.
func renameNew(root *os.Root, from, to string) error { return carefully(root, from, to) }
