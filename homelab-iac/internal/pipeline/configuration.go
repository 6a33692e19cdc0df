package pipeline

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A plan file is a ZIP archive that holds the configuration it was made of: tfconfig/modules.json lists the modules, and tfconfig/m-KEY/
// has each one's files (internal/configs/configload/loader_snapshot.go and planfile/config_snapshot.go of Terraform and OpenTofu).
const (
	snapshotList = "tfconfig/modules.json"
	snapshotRoot = "tfconfig/m-"
	// longestFile bounds what is unpacked of one file of configuration.
	longestFile = 16 << 20
)

// sameConfiguration compares the configuration in a plan file with a folder. Whoever may open a merge request may put any bytes into its
// artifacts; what is applied must at least come from the files that were read.
func sameConfiguration(planFile []byte, dir string) error {
	archive, err := zip.NewReader(bytes.NewReader(planFile), int64(len(planFile)))
	if err != nil {
		return errors.New("it is no plan file")
	}
	inside := map[string][]byte{}
	for _, f := range archive.File {
		if !strings.HasPrefix(f.Name, "tfconfig/") || strings.HasSuffix(f.Name, "/") {
			continue
		}
		if _, twice := inside[f.Name]; twice {
			return fmt.Errorf("it holds %s twice", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		text, err := io.ReadAll(io.LimitReader(r, longestFile+1))
		r.Close()
		if err != nil || len(text) > longestFile {
			return fmt.Errorf("%s cannot be read", f.Name)
		}
		inside[f.Name] = text
	}
	var modules []struct{ Key, SourceAddr, Dir string }
	if err := json.Unmarshal(inside[snapshotList], &modules); err != nil || len(modules) == 0 {
		return errors.New("it does not say of which files it was made")
	}
	seen := 0
	for _, m := range modules {
		where := path.Clean(filepath.ToSlash(m.Dir))
		if path.IsAbs(where) || where == ".." || strings.HasPrefix(where, "../../../") {
			return fmt.Errorf("its module %q lies outside", m.Key)
		}
		prefix := snapshotRoot + m.Key + "/"
		var names []string
		for name, text := range inside {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok || strings.Contains(rest, "/") {
				continue
			}
			seen++
			names = append(names, rest)
			here, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(where), rest))
			if err != nil || !bytes.Equal(here, text) {
				return fmt.Errorf("%s is another one", path.Join(where, rest))
			}
		}
		entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(where)))
		if err != nil {
			return fmt.Errorf("%s is not there", where)
		}
		for _, e := range entries {
			name := e.Name()
			if !e.IsDir() && (strings.HasSuffix(name, ".tf") || strings.HasSuffix(name, ".tf.json") || strings.HasSuffix(name, ".tofu")) && !slices.Contains(names, name) {
				return fmt.Errorf("%s is not in it", path.Join(where, name))
			}
		}
	}
	if seen == 0 {
		return errors.New("it does not hold the files of which it was made")
	}
	return nil
}
