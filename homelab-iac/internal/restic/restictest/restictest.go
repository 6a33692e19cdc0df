// Package restictest gives tests a real restic and repositories to work on.
package restictest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"home.arpa/lab/homelab-iac/internal/restic"
)

// Tool finds a program that homelab-iac/test/tools/setup.sh built. Without it the test is skipped, or fails where
// HOMELAB_PROVE is set: a proof that skips proves nothing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err == nil {
		if p, err := exec.LookPath(filepath.Join(cache, "homelab", "bin", name)); err == nil {
			return p
		}
	}
	if os.Getenv("HOMELAB_PROVE") != "" {
		t.Fatalf("%s is missing: run homelab-iac/test/tools/setup.sh", name)
	}
	t.Skipf("%s is missing: homelab-iac/test/tools/setup.sh builds it", name)
	return ""
}

// Repo is a folder to be made a repository in, with a password and a cache of its own.
func Repo(t testing.TB) restic.Repo {
	t.Helper()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return restic.Repo{Binary: Tool(t, "restic"), URL: filepath.Join(dir, "repo"), PasswordFile: password, Cache: filepath.Join(dir, "cache")}
}

// Inited is Repo with the repository made: the one of testdata, whose key opens at once.
func Inited(t testing.TB) restic.Repo {
	t.Helper()
	r := Repo(t)
	Fill(t, r.URL)
	return r
}

// Fill lays the repository of testdata into a folder.
func Fill(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"data", "index", "keys", "locks", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range New() {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Write makes files below a folder: the names and what is in them.
func Write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
