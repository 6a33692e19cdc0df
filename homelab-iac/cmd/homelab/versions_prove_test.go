//go:build prove

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/s3"
	"home.arpa/lab/homelab-iac/internal/versions"
)

// onS3 moves a household's repository into a real S3, with a key file for each of its roles.
func (h *household) onS3() map[string]restic.Repo {
	h.t.Helper()
	keys := restictest.S3(h.t)
	text, err := os.ReadFile(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	config := strings.Replace(string(text), "url: "+h.repo.URL, "url: "+keys["backup"].URL, 1)
	config = strings.Replace(config, h.repo.PasswordFile, keys["backup"].PasswordFile, 1)
	for role, r := range keys {
		restictest.Write(h.t, h.dir, map[string]string{role + ".env": strings.Join(r.Env, "\n") + "\n"})
		config = strings.Replace(config, role+": {file: "+h.dir+"/key.env}", role+": {file: "+h.dir+"/"+role+".env}", 1)
	}
	restictest.Write(h.t, h.dir, map[string]string{"homelab.yaml": config})
	return keys
}

// TestWhatAnIntruderWroteOverComesBack has one who stole the backup key write over everything that it reaches, and forge a snapshot.
func TestWhatAnIntruderWroteOverComesBack(t *testing.T) {
	h := newHousehold(t)
	keys := h.onS3()
	h.does(0, "is there", "backup", "init", "fast")
	for _, text := range []string{"first", "second, longer", "third"} {
		restictest.Write(t, h.dir, map[string]string{"notes/a.md": text})
		h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	}
	was := measure(t, h.dir+"/notes")
	h.does(0, "objects are what they were", "backup", "versions", "fast")

	maintenance, err := s3.Open(keys["maintenance"].URL, keys["maintenance"].Env)
	if err != nil {
		t.Fatal(err)
	}
	well, err := maintenance.Versions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // versions are told apart by the second
	moment := time.Now().UTC().Format(time.RFC3339)
	time.Sleep(1100 * time.Millisecond)

	intruder, err := s3.Open(keys["backup"].URL, keys["backup"].Env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := intruder.Versions(t.Context()); err == nil {
		t.Error("the backup key reads versions")
	}
	spoiled := 0
	for _, v := range well {
		if strings.HasPrefix(v.Key, "locks/") || v.Deleted {
			continue
		}
		if err := intruder.Put(t.Context(), v.Key, []byte("pay us")); err != nil {
			t.Fatal(err)
		}
		if spoiled++; spoiled%3 == 0 { // some twice
			if err := intruder.Put(t.Context(), v.Key, []byte("pay us more")); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.does(1, "find a snapshot of notes", "restore", "run", "--tags", "vault", "--yes") // nothing opens any more
	var found versions.Result
	text := h.does(1, "", "backup", "versions", "fast", "--json")
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found.Losses) != spoiled {
		t.Fatalf("%d losses of %d: %v", len(found.Losses), spoiled, err)
	}
	h.asked("n\n", 4, "Nothing was changed", "backup", "versions", "fast", "--put-back")
	h.does(0, "objects are back", "backup", "versions", "fast", "--put-back", "--yes")
	h.does(0, "objects are what they were", "backup", "versions", "fast", "--put-back", "--yes")
	h.does(0, "objects are what they were", "backup", "versions", "fast", "--before", moment)
	if out, err := keys["restore"].Run(t.Context(), []string{"check", "--no-lock", "--read-data"}, nil); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	os.RemoveAll(h.dir + "/notes")
	h.does(0, "green", "restore", "run", "--tags", "vault", "--yes")
	h.same(was, h.dir+"/notes")
	if _, err := keys["backup"].Backup(t.Context(), restic.Backup{Host: "here", Tags: []string{"tier:fast", "svc:notes"}, Paths: []string{h.dir + "/state"}}, nil); err != nil {
		t.Fatal(err)
	}
	h.does(0, "1 snapshots came after that moment", "backup", "versions", "fast", "--before", moment)
}

// TestWhatWasDeletedComesBackToItsMoment has one who stole the maintenance key delete it all.
func TestWhatWasDeletedComesBackToItsMoment(t *testing.T) {
	h := newHousehold(t)
	keys := h.onS3()
	h.does(0, "is there", "backup", "init", "fast")
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	was := measure(t, h.dir+"/notes")
	time.Sleep(1100 * time.Millisecond)
	moment := time.Now().UTC().Format(time.RFC3339)
	time.Sleep(1100 * time.Millisecond)
	f, err := s3.Open(keys["maintenance"].URL, keys["maintenance"].Env)
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.Versions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(f.Endpoint, "http://")
	for _, v := range list {
		if v.Latest && !v.Deleted {
			if status, body := restictest.Request(t, addr, f.ID, f.Secret, http.MethodDelete, "/"+f.Bucket+"/"+f.Prefix+v.Key, "", nil); status/100 != 2 {
				t.Fatal(status, body)
			}
		}
	}
	h.does(1, "there is no repository", "backup", "run", "fast")
	h.does(0, "objects are what they were", "backup", "versions", "fast") // prune deletes, too: only a moment tells
	restictest.Write(t, h.dir, map[string]string{"admin.env": strings.Join(keys["maintenance"].Env, "\n") + "\n"})
	h.does(0, "objects are back", "backup", "versions", "fast", "--before", moment, "--put-back", "--yes", "--key", h.dir+"/admin.env")
	os.RemoveAll(h.dir + "/notes")
	h.does(0, "green", "restore", "run", "--tags", "vault", "--yes")
	h.same(was, h.dir+"/notes")
}
