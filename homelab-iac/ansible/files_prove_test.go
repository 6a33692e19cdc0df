//go:build prove

package ansible

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/ansible"
)

// A told is what homelab_files says of one call.
type told struct {
	Changed bool
	Paths   []string
	Msg     string
}

// written runs homelab_files here, once for each arguments.
func written(t *testing.T, flags []string, calls ...map[string]any) (answers []told) {
	t.Helper()
	dir := t.TempDir()
	answer := filepath.Join(dir, "answer.json")
	var tasks []any
	var all []string
	for n, arguments := range calls {
		name := fmt.Sprint("told_", n)
		all = append(all, name)
		tasks = append(tasks, map[string]any{"name": "write", "homelab_files": arguments, "register": name, "ignore_errors": true})
	}
	tasks = append(tasks, map[string]any{"name": "tell", "ansible.builtin.copy": map[string]any{"content": "{{ [" + strings.Join(all, ", ") + "] | to_json }}", "dest": answer, "mode": "0600"}, "check_mode": false})
	play, err := json.Marshal([]any{map[string]any{"hosts": "localhost", "connection": "local", "gather_facts": false, "tasks": tasks}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "play.yml")
	if err := os.WriteFile(file, play, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ansible.Open(t.Context(), ".", nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(r.Bin, "ansible-playbook"), append([]string{"-i", "localhost,", file}, flags...)...)
	cmd.Env = append(os.Environ(), "ANSIBLE_LIBRARY="+filepath.Join(r.Dir, "library"), "ANSIBLE_NOCOLOR=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(answer)
	if err != nil || json.Unmarshal(text, &answers) != nil {
		t.Fatal(string(text), err)
	}
	return answers
}

func TestManyFilesAreWrittenInOneCall(t *testing.T) {
	if os.Getenv("HOMELAB_PROVE") == "" {
		t.Skip("it takes half a minute: HOMELAB_PROVE=1")
	}
	dir := t.TempDir()
	entry := func(path string, more map[string]any) map[string]any {
		e := map[string]any{"path": path}
		for k, v := range more {
			e[k] = v
		}
		return e
	}
	all := map[string]any{"folder": dir, "mode": "0640", "files": []any{
		entry("a/b", map[string]any{"mode": "0750"}),
		entry("a/b/text", map[string]any{"content": "ü\n"}),
		entry(dir+"/json", map[string]any{"content": `{"a": 1}`, "mode": "0600"}),
		entry("empty", map[string]any{"content": ""}),
	}}
	if got := written(t, []string{"--check"}, all)[0]; !got.Changed || len(got.Paths) != 4 {
		t.Errorf("--check: %+v", got)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("--check wrote %v", left)
	}
	got := written(t, nil, all, all)
	if !got[0].Changed || len(got[0].Paths) != 4 {
		t.Errorf("%+v", got[0])
	}
	if got[1].Changed {
		t.Errorf("a second time it changed %v", got[1].Paths)
	}
	for path, want := range map[string]string{"a": "drwxr-x---", "a/b": "drwxr-x---", "a/b/text": "-rw-r-----ü\n", "json": `-rw-------{"a": 1}`, "empty": "-rw-r-----"} {
		st, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
			continue
		}
		text, _ := os.ReadFile(filepath.Join(dir, path))
		if got := st.Mode().String() + string(text); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	text, mode := filepath.Join(dir, "a/b/text"), filepath.Join(dir, "json")
	if err := errors.Join(os.WriteFile(text, []byte("other"), 0o600), os.Chmod(mode, 0o644)); err != nil {
		t.Fatal(err)
	}
	wrong := []struct {
		entry map[string]any
		want  string
	}{
		{entry("json", nil), "is in the way: it is no folder"},
		{entry("a/b", map[string]any{"content": "x"}), "is in the way: it is a folder"},
		{entry("x", map[string]any{"content": "x", "mode": "u+x"}), "write it as 0640"},
		{entry("none/x", map[string]any{"content": "x"}), "is its folder there"},
	}
	calls := []map[string]any{all}
	for _, w := range wrong {
		calls = append(calls, map[string]any{"folder": dir, "files": []any{w.entry}})
	}
	got = written(t, nil, calls...)
	if !slices.Equal(got[0].Paths, []string{text, mode}) {
		t.Errorf("of two that others changed it changed %v", got[0].Paths)
	}
	for n, w := range wrong {
		if !strings.Contains(got[n+1].Msg, w.want) {
			t.Errorf("%v: %q, want %q", w.entry, got[n+1].Msg, w.want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*", ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
