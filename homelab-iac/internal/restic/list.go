package restic

import (
	"context"
	"encoding/json"
	"io/fs"
	"time"
)

// A Node is one entry of a snapshot, as restic ls prints it. Names that are not UTF-8 have their odd bytes replaced there.
type Node struct {
	Path  string      `json:"path"`
	Type  string      `json:"type"` // file, dir, symlink, fifo, ...
	UID   uint32      `json:"uid"`
	GID   uint32      `json:"gid"`
	Size  int64       `json:"size"`
	Mode  fs.FileMode `json:"mode"`
	MTime time.Time   `json:"mtime"`
}

// List lists a folder of a snapshot with all that is in it.
func (r Repo) List(ctx context.Context, snapshot, dir string) ([]Node, error) {
	var nodes []Node
	_, err := r.Run(ctx, []string{"ls", "--no-lock", "--json", "--recursive", snapshot, dir}, func(line []byte) {
		var n struct {
			Kind string `json:"struct_type"`
			Node
		}
		if json.Unmarshal(line, &n) == nil && n.Kind == "node" {
			nodes = append(nodes, n.Node)
		}
	})
	return nodes, err
}
