package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPinWritesWhatTheRegistrySays(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	moved := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.URL.Path, "/known/manifests/1"):
			w.WriteHeader(404)
		case moved:
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("cd", 32))
		default:
			w.Header().Set("Docker-Content-Digest", digest)
		}
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	dir := t.TempDir()
	file := filepath.Join(dir, "x", "compose.yaml")
	os.Mkdir(filepath.Dir(file), 0o755)
	os.WriteFile(file, []byte("services:\n  a:\n    image: "+host+"/known:1 # why\n  b:\n    image: "+host+"/other:2\n"), 0o644)
	if code, _, stderr := homelab(t, "", "pin", "--plain-http", dir); code != 1 || !strings.Contains(stderr, "other:2") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	want := "services:\n  a:\n    image: " + host + "/known:1@" + digest + " # why\n  b:\n    image: " + host + "/other:2\n"
	if text, _ := os.ReadFile(file); string(text) != want {
		t.Errorf("%s", text)
	}
	if text, _ := os.ReadFile(dir + "/unpinned.txt"); string(text) != unpinnedHead+host+"/other:2\n" {
		t.Errorf("%s", text)
	}
	moved = true
	if code, _, stderr := homelab(t, "", "pin", "--plain-http", "--check", dir); code != 1 || !strings.Contains(stderr, "is sha256:cdcd") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if text, _ := os.ReadFile(file); string(text) != want {
		t.Errorf("--check wrote:\n%s", text)
	}
	if code, _, _ := homelab(t, "", "pin", t.TempDir()); code != 2 {
		t.Errorf("an empty folder: exit %d", code)
	}
}

func TestTheListOfUnpinnedImagesIsAsPinWouldWriteIt(t *testing.T) {
	text, err := os.ReadFile("../../services/unpinned.txt")
	if err != nil || !strings.HasPrefix(string(text), unpinnedHead) {
		t.Errorf("services/unpinned.txt begins otherwise: %v", err)
	}
}
