package whole

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func in(t *testing.T) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

// Eight writers add a line each to one note, which is not there at first: no line is lost, and a reader never sees half a note.
func TestNoWriterLosesAnothersText(t *testing.T) {
	dir, root := in(t)
	add := func(line string) error {
		for range 10_000 {
			before, err := root.Lstat("day.md")
			if errors.Is(err, fs.ErrNotExist) {
				if err = Create(root, "day.md", []byte("begin\n"+line+"end\n"), nil); errors.Is(err, fs.ErrExist) {
					continue
				}
				return err
			}
			if err != nil {
				return err
			}
			text, err := root.ReadFile("day.md")
			if err != nil {
				return err
			}
			if !strings.HasPrefix(string(text), "begin\n") || !strings.HasSuffix(string(text), "end\n") {
				return fmt.Errorf("half a note: %q", text)
			}
			err = Replace(root, "day.md", []byte(strings.TrimSuffix(string(text), "end\n")+line+"end\n"), before, nil)
			if !errors.Is(err, ErrChanged) {
				return err
			}
		}
		return errors.New("never its turn")
	}
	var all sync.WaitGroup
	for writer := range 8 {
		all.Go(func() {
			for n := range 10 {
				if err := add(fmt.Sprintf("%d from %d\n", n, writer)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(filepath.Join(dir, "day.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), " from "); n != 80 {
		t.Errorf("%d lines of 80", n)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
}

// A person's change between the look and the rename stays, also one of the same size in the same instant.
func TestAChangeOfSomebodyElseStays(t *testing.T) {
	dir, root := in(t)
	at := filepath.Join(dir, "a.md")
	if err := os.WriteFile(at, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := root.Lstat("a.md")
	if err != nil {
		t.Fatal(err)
	}
	err = Replace(root, "a.md", []byte("mine"), before, func() {
		if err := os.WriteFile(at+".new", []byte("his"), 0o640); err != nil {
			t.Error(err)
		}
		if err := errors.Join(os.Chtimes(at+".new", before.ModTime(), before.ModTime()), os.Rename(at+".new", at)); err != nil {
			t.Error(err)
		}
	})
	text, _ := os.ReadFile(at)
	if !errors.Is(err, ErrChanged) || string(text) != "his" {
		t.Errorf("%v, and it says %q", err, text)
	}
	if before, err = root.Lstat("a.md"); err != nil {
		t.Fatal(err)
	}
	if err := Replace(root, "a.md", []byte("mine"), before, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(at); err != nil || now.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v (%v)", now.Mode(), err)
	}
	if err := Create(root, "a.md", []byte("another"), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a taken name: %v", err)
	}
}

// What a process left that died is removed by the next one, and what another one is writing at this moment is not.
func TestWhatTheDeadLeaveIsRemoved(t *testing.T) {
	dir, root := in(t)
	old, young := filepath.Join(dir, ".llm-runner-a.md-ABCDEFGHIJKL"), filepath.Join(dir, ".llm-runner-a.md-MNOPQRSTUVWX")
	for _, p := range []string{old, young} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := Create(root, "a.md", []byte("text"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an hour old: %v", err)
	}
	if _, err := os.Lstat(young); err != nil {
		t.Error(err)
	}
}
