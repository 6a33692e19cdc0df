//go:build unix

package agent

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file the owner of another one, where this user may.
func keepOwner(root *os.Root, p string, as fs.FileInfo) error {
	if st, ok := as.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return root.Lchown(p, int(st.Uid), int(st.Gid))
	}
	return nil
}
