// Package secrets writes each service's variables into a file that only its owner reads: what the catalog's compose files insist on, from where
// the secrets are kept. Either everything that is needed is there, or nothing is written.
package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/infisical"
	"home.arpa/lab/internal/strict"
)

// A Source returns what a folder holds; infisical.ErrNoFolder when there is none.
type Source func(ctx context.Context, folder string) (map[string]string, error)

// A Result tells of one service, and never a value.
type Result struct {
	Service   string   `json:"service"`
	File      string   `json:"file"`
	Variables []string `json:"variables"` // names, sorted
	Changed   bool     `json:"changed"`
}

// needed finds the variables that a compose file insists on: ${NAME:?}.
var needed = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*):?\?`)

// Needs lists the variables that a service's compose file insists on, sorted.
func Needs(fsys fs.FS, service string) ([]string, error) {
	text, err := fs.ReadFile(fsys, service+"/compose.yaml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, m := range needed.FindAllSubmatch(text, -1) {
		found[string(m[1])] = true
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// A Request says what to gather.
type Request struct {
	Catalog fs.FS             // NAME/service.yaml and NAME/compose.yaml
	Host    string            // the machine whose services are meant
	Without []string          // services that do not run there although the catalog says so
	Set     map[string]string // what is no secret, for every service; a secret of the same name comes before it
}

// Gather reads the folder /NAME of each service that runs on the host and returns the text of each one's file. All faults are told at once: what is
// missing, and what no file can hold.
func Gather(ctx context.Context, r Request, from Source) (map[string][]byte, []Result, error) {
	all, err := catalog.Load(r.Catalog)
	if err != nil {
		return nil, nil, err
	}
	texts := map[string][]byte{}
	var results []Result
	var faults strict.Faults
	for _, s := range all {
		if s.Host != r.Host || slices.Contains(r.Without, s.Name) {
			continue
		}
		needs, err := Needs(r.Catalog, s.Name)
		if err != nil {
			return nil, nil, err
		}
		values, err := from(ctx, "/"+s.Name)
		if err != nil && !errors.Is(err, infisical.ErrNoFolder) {
			return nil, nil, err
		}
		vars := maps.Clone(r.Set)
		if vars == nil {
			vars = map[string]string{}
		}
		maps.Copy(vars, values)
		for _, name := range needs {
			if vars[name] == "" {
				faults = append(faults, strict.Fault{Key: s.Name, Text: fmt.Sprintf("%s is missing: add it to the folder /%s", name, s.Name)})
			}
		}
		text, wrong := Format(vars)
		for _, why := range wrong {
			faults = append(faults, strict.Fault{Key: s.Name, Text: why})
		}
		texts[s.Name] = text
		results = append(results, Result{Service: s.Name, Variables: slices.Sorted(maps.Keys(vars))})
	}
	if len(results) == 0 {
		faults = append(faults, strict.Fault{Key: "host", Text: fmt.Sprintf("no service of the catalog runs on %q", r.Host)})
	}
	if len(faults) > 0 {
		return nil, nil, faults
	}
	return texts, results, nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Format writes variables as Compose reads them back to the byte, sorted by name, in single quotes, where nothing is expanded and only \' is
// special. wrong names the variables that cannot be written so, and never their values.
func Format(vars map[string]string) (text []byte, wrong []string) {
	var b bytes.Buffer
	b.WriteString("# Written by homelab secrets pull.\n")
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		value := vars[name]
		switch {
		case !variableName.MatchString(name):
			wrong = append(wrong, fmt.Sprintf("%q is not the name of a variable: letters, digits and _ only", name))
		case strings.ContainsAny(value, "\x00\r"):
			wrong = append(wrong, fmt.Sprintf("%s holds a zero byte or a carriage return: enter it anew", name))
		case strings.HasSuffix(value, `\`), strings.Contains(value, `\'`):
			wrong = append(wrong, fmt.Sprintf(`%s has a \ at its end or before a ', which no env file can hold: choose another secret`, name))
		default:
			fmt.Fprintf(&b, "%s='%s'\n", name, strings.ReplaceAll(value, "'", `\'`))
		}
	}
	return b.Bytes(), wrong
}

// Write puts each text into dir/NAME.env, mode 0600, in one step each: a reader, and who comes after a power cut, finds the old file or the new
// one. A file that says the same already is left alone. results are completed.
func Write(dir string, texts map[string][]byte, results []Result) error {
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("write secrets: %w: make the folder first, mode 0700", err)
	} else if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("write secrets: others may enter %s (mode %04o): chmod 0700 it first", dir, st.Mode().Perm())
	}
	for i := range results {
		r := &results[i]
		r.File = filepath.Join(dir, r.Service+".env")
		changed, err := replace(r.File, texts[r.Service])
		if err != nil {
			return fmt.Errorf("write secrets of %s: %w", r.Service, err)
		}
		r.Changed = changed
	}
	return nil
}

func replace(file string, text []byte) (changed bool, err error) {
	st, err := os.Lstat(file)
	if err == nil && st.Mode().IsRegular() && st.Mode().Perm() == 0o600 {
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
			return false, nil
		}
	}
	part, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(part.Name()) //nolint:errcheck // it is gone once it has its name
	_, err = part.Write(text)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return false, err
	}
	if err := os.Rename(part.Name(), file); err != nil {
		return false, err
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return true, err
	}
	defer folder.Close()
	return true, folder.Sync()
}
