package site

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const example = `host: here
repositories:
  fast:
    url: s3:https://example/bucket
    password: /etc/homelab/fast.password
    keys:
      backup: {file: /etc/homelab/a.env, expires: 2027-01-31}
`

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "homelab.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoad(t *testing.T) {
	c, err := Load(write(t, example))
	if err != nil || c.State != "/var/lib/homelab" || c.Repositories["fast"].Keys["backup"].File != "/etc/homelab/a.env" {
		t.Fatalf("%+v %v", c, err)
	}
	if c, err = Load(write(t, "state: /s\n")); err != nil || c.Host == "" {
		t.Errorf("%+v %v", c, err)
	}
	for old, c := range map[string][2]string{
		"host: here":                {"state: here", "not an absolute path"},
		"fast:":                     {"quick:", "there are fast and slow"},
		"backup: {":                 {"admin: {", "there are backup, maintenance and restore"},
		"2027-01-31":                {"soon", "is not a date"},
		"/etc/homelab/a.env":        {"a.env", "not an absolute path"},
		"url:":                      {"rul:", `did you mean "url"?`},
		"s3:https://example/bucket": {`""`, "says where"},
	} {
		if _, err := Load(write(t, strings.Replace(example, old, c[0], 1))); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", c[0], err)
		}
	}
	for _, empty := range []string{"", "\n", "# nothing\n", "---\n"} {
		if _, err := Load(write(t, empty)); err == nil || !strings.Contains(err.Error(), "is empty") {
			t.Errorf("%q: %v", empty, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Error(err)
	}
}

func TestKeysAndSecrets(t *testing.T) {
	env, err := Key{File: write(t, "# the key\nA=1\n\nB=\"two=2\"\n")}.Environ()
	if err != nil || !slices.Equal(env, []string{"A=1", "B=two=2"}) {
		t.Errorf("%q %v", env, err)
	}
	if _, err := (Key{File: write(t, "topsecret\n")}).Environ(); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Error(err)
	}
	t.Setenv("HOMELAB_TEST_SECRET", "x")
	for reference, want := range map[string]string{"": "", "env:HOMELAB_TEST_SECRET": "x", "file:" + write(t, " y\n"): "y"} {
		if got, err := Secret(reference); got != want || err != nil {
			t.Errorf("%s: %q %v", reference, got, err)
		}
	}
	for _, reference := range []string{"env:HOMELAB_NOT_THERE", "file:/not/there", "topsecret"} {
		if _, err := Secret(reference); err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v", reference, err)
		}
	}
}
