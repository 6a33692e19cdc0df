package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestEveryPageButTheHomelabsIsInTheHandbook(t *testing.T) {
	here, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range here {
		if _, err := fs.Stat(FS, p); (err == nil) == slices.Contains(Homelab, p) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestLinksLeadToPages(t *testing.T) {
	err := fs.WalkDir(FS, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := FS.ReadFile(p)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if target := m[1]; !strings.Contains(target, "://") {
				if _, err := fs.Stat(FS, path.Join(path.Dir(p), target)); err != nil {
					t.Errorf("%s links to %s: %v", p, target, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A row behind an empty line is no part of a table: it is shown as the text that it is.
func TestNoTableIsCutByAnEmptyLine(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"decisions", "homelab", "runbooks"} {
		more, err := filepath.Glob(folder + "/*.md")
		if err != nil || len(more) == 0 {
			t.Fatal(folder, err)
		}
		pages = append(pages, more...)
	}
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		lines, code := strings.Split(string(text), "\n"), false
		for i, line := range lines {
			if code = code != strings.HasPrefix(line, "```"); code || i == 0 || !strings.HasPrefix(line, "|") || strings.HasPrefix(lines[i-1], "|") {
				continue
			}
			if i+1 == len(lines) || !strings.HasPrefix(lines[i+1], "|--") && !strings.HasPrefix(lines[i+1], "| --") {
				t.Errorf("%s, line %d: a table begins without a head: %.60s", p, i+1, line)
			}
		}
	}
}

func TestLinksOfTheHomelabsPagesLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("runbooks/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatal(pages, err)
	}
	list, err := os.ReadFile("runbooks/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if name := filepath.Base(p); name != "README.md" && !strings.Contains(string(list), "("+name+")") {
			t.Errorf("runbooks/README.md does not name %s", name)
		}
	}
	more, err := filepath.Glob("homelab/*.md")
	if err != nil || len(more) < 3 {
		t.Fatal(more, err)
	}
	for _, p := range slices.Concat(pages, more, Homelab) {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if target := m[1]; !strings.Contains(target, "://") {
				if _, err := os.Stat(filepath.Join(filepath.Dir(p), target)); err != nil {
					t.Errorf("%s links to %s: %v", p, target, err)
				}
			}
		}
	}
}
