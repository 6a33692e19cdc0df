package tree

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// odd makes a folder of everything that restores get wrong.
func odd(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir+"/sub/empty", 0o750))
	for name, text := range map[string]string{"plain": "a", "ü mit\nNewline": "b", "\xff\xfe": "c", "-dash": "d", "sub/x": "e"} {
		must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640))
	}
	must(os.Link(dir+"/plain", dir+"/sub/hard"))
	must(os.Symlink("../plain", dir+"/sub/soft"))
	must(os.Symlink("nowhere", dir+"/broken"))
	must(unix.Mkfifo(dir+"/pipe", 0o600))
	must(unix.Setxattr(dir+"/sub/x", "user.note", []byte{0, 1}, 0))
	f, err := os.Create(dir + "/sparse")
	must(err)
	must(f.Truncate(1 << 20))
	must(f.Close())
	must(unix.Chmod(dir+"/sub", 0o2755))
	for _, name := range []string{"sub/x", "plain", "sub"} {
		must(os.Chtimes(filepath.Join(dir, name), time.Time{}, time.Unix(1e9, 123456789)))
	}
}

func TestEveryDifferenceIsSeen(t *testing.T) {
	dir := t.TempDir() + "/a"
	odd(t, dir)
	was, err := Measure(dir, nil)
	if err != nil || len(was) != 13 {
		t.Fatalf("%d entries: %v", len(was), err)
	}
	text, err := json.Marshal(was)
	if err != nil {
		t.Fatal(err)
	}
	var again []Entry
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(was, again) {
		t.Errorf("it does not survive JSON: %v", err)
	}
	if same, err := Measure(dir, nil); err != nil || len(Diff(was, same)) != 0 {
		t.Errorf("the same differs: %v %v", Diff(was, same), err)
	}
	x := dir + "/sub/x"
	for want, change := range map[string]func() error{
		"sha256":             func() error { return os.WriteFile(x, []byte("E"), 0o640) },
		"size":               func() error { return os.Truncate(dir+"/sparse", 5) },
		"mode: was 0640":     func() error { return os.Chmod(x, 0o600) },
		"mode: was 2755":     func() error { return os.Chmod(dir+"/sub", 0o755) },
		"mtime":              func() error { return os.Chtimes(x, time.Time{}, time.Unix(1e9, 0)) },
		"xattrs":             func() error { return unix.Removexattr(x, "user.note") },
		"missing":            func() error { return os.Remove(dir + "/-dash") },
		"added":              func() error { return os.WriteFile(dir+"/new", nil, 0o600) },
		"target":             func() error { os.Remove(dir + "/broken"); return os.Symlink("elsewhere", dir+"/broken") },
		"type: was pipe":     func() error { os.Remove(dir + "/pipe"); return os.WriteFile(dir+"/pipe", nil, 0o600) },
		"hard link: was pla": func() error { os.Remove(dir + "/sub/hard"); return os.WriteFile(dir+"/sub/hard", []byte("a"), 0o640) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		is, err := Measure(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range Diff(was, is) {
			found = found || strings.HasPrefix(d.What, want)
		}
		if !found {
			t.Errorf("%s was not seen in %v", want, Diff(was, is))
		}
	}
	if os.Getuid() == 0 {
		if err := os.Lchown(x, 12, 34); err != nil {
			t.Fatal(err)
		}
		is, _ := Measure(dir, nil)
		if text, _ := json.Marshal(Diff(was, is)); !strings.Contains(string(text), "uid: was 0, is 12") || !strings.Contains(string(text), "gid") {
			t.Errorf("another owner was not seen: %s", text)
		}
	}
	if few, err := Measure(dir, func(rel string) bool { return rel == "sub" }); err != nil || len(few) != len(was)-5 {
		t.Errorf("without sub: %d of %d %v", len(few), len(was), err)
	}
	if _, err := Measure(dir+"/none", nil); err == nil {
		t.Error("a missing folder was measured")
	}
}
