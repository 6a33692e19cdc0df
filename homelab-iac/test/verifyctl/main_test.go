package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAMachineThatDoesNotAnswerIsNotVerified(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\necho 'no route to host' >&2\nexit 255\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "name a machine"},
		{[]string{"--nonsense", "x"}, 2, "nonsense"},
		{[]string{"--groups", "nginx", "x"}, 1, "nginx runs"},
		{[]string{"--groups", "docker,ngnix", "x"}, 2, "nothing is said about \"ngnix\"; there are docker, metrics, nginx"},
		{[]string{"--json", "x"}, 1, `"ok": false`},
	} {
		var out strings.Builder
		if code := run(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: exit %d, want %d with %q\n%s", c.args, code, c.code, c.want, out.String())
		}
	}
}
