package images

import (
	"archive/tar"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/services"
)

func TestEveryImageOfTheCatalogHasSomethingBehindIt(t *testing.T) {
	all, err := catalog.Load(services.FS)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for _, c := range s.Compose.Containers {
			if i, err := (Programs{Gitea: "x"}).image(c.Image); err != nil || i.what == "" || len(i.entry) == 0 {
				t.Errorf("%s: %+v %v", c.Image, i, err)
			}
		}
	}
	if i, err := (Programs{}).image("gitea/gitea:1.24.6"); err != nil || i.what != "a stand-in" {
		t.Errorf("where nobody built Gitea there is %+v, %v", i, err)
	}
	if _, err := (Programs{}).image("example/unknown:1"); err == nil {
		t.Error("an image that nothing stands for is no error")
	}
	for name, want := range map[string]string{"postgres:17.6": "postgres", "host:5000/a/b": "host:5000/a/b", "host:5000/a/b:1@sha256:00": "host:5000/a/b"} {
		if got := repository(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAnArchiveIsMadeAnewWhenAProgramInItChanges(t *testing.T) {
	sum := func(p Programs, names ...string) string {
		t.Helper()
		list := map[string]image{}
		for _, name := range names {
			list[name], _ = p.image(name)
		}
		s, err := sumOf(list)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	runner, standin := "registry.gitlab.com/example/homelab/llm-runner:deployed", "qdrant/qdrant:1"
	first := sum(Programs{Runner: write(t, "same"), Standin: write(t, "other")}, runner, standin)
	for range 50 {
		if sum(Programs{Runner: write(t, "same"), Standin: write(t, "other")}, runner, standin) != first {
			t.Fatal("the same programs elsewhere make another archive, or the sum depends on chance")
		}
	}
	if sum(Programs{Runner: write(t, "sane"), Standin: write(t, "other")}, runner, standin) == first {
		t.Error("another program makes the same archive")
	}
	if sum(Programs{Runner: write(t, "same"), Standin: write(t, "other")}, runner) == first {
		t.Error("fewer images are the same archive")
	}
	for _, p := range []Programs{{}, {Runner: "/not/there"}} {
		i, _ := p.image(runner)
		if _, err := sumOf(map[string]image{runner: i}); err == nil || !strings.Contains(err.Error(), "llm-runner") {
			t.Errorf("a program that is not there: %v", err)
		}
	}
}

// archive writes a tar with these files, each with its name as its text.
func archive(t *testing.T, names ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.tar")
	err := writeTar(file, func(w *tar.Writer) error {
		for _, name := range names {
			if err := add(w, name, 0o644, int64(len(name)), strings.NewReader(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF { //nolint:errorlint // what tar returns
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(text)
	}
}

func TestAMachineGetsOnlyWhatItsImagesRead(t *testing.T) {
	base := archive(t, "./usr/bin/env", "./usr/bin/prometheus", "./usr/lib/postgresql/17/bin/postgres", "./usr/share/perl/x", "./usr/bin/git")
	for what, want := range map[string][]string{
		"prom/prometheus:v3": {"./usr/bin/env", "./usr/bin/prometheus"},
		"postgres:17.6":      {"./usr/bin/env", "./usr/lib/postgresql/17/bin/postgres"},
		"qdrant/qdrant:1":    {"./usr/bin/env"},
	} {
		thin := filepath.Join(t.TempDir(), "thin.tar")
		if err := thinOut(base, thin, []string{what}); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(read(t, thin))); !slices.Equal(got, want) {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestAnArchiveHasWhatDockerLoads(t *testing.T) {
	dir := t.TempDir()
	p := Programs{Runner: write(t, "a program"), Standin: write(t, "a stand-in")}
	list := map[string]image{}
	names := []string{"postgres:17.6", "qdrant/qdrant:1", "registry.gitlab.com/example/homelab/llm-runner:deployed"}
	for _, name := range names {
		list[name], _ = p.image(name)
	}
	out := filepath.Join(dir, "set.tar")
	if err := pack(out, archive(t, "./usr/bin/env"), list); err != nil {
		t.Fatal(err)
	}
	found := read(t, out)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal([]byte(found["manifest.json"]), &manifest); err != nil || len(manifest) != 3 {
		t.Fatal(manifest, err)
	}
	for n, m := range manifest {
		var config struct {
			Config struct{ Entrypoint []string }
			RootFS struct {
				IDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal([]byte(found[m.Config]), &config); err != nil || len(config.RootFS.IDs) != len(m.Layers) || len(config.Config.Entrypoint) == 0 || m.RepoTags[0] != names[n] {
			t.Errorf("%+v: %v %+v", m, err, config)
		}
		for _, l := range m.Layers {
			if len(found[l]) == 0 {
				t.Errorf("the layer %s is not there", l)
			}
		}
	}
	if len(manifest[0].Layers) != 2 || !slices.Equal(manifest[0].Layers, manifest[1].Layers) || len(manifest[2].Layers) != 1 {
		t.Errorf("%+v", manifest)
	}
	own := filepath.Join(t.TempDir(), "own.tar")
	if err := os.WriteFile(own, []byte(found["own.tar"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if layer := read(t, own); layer["lab/standin"] != "a stand-in" || layer["lab/postgres.sh"] == "" || layer["usr/local/bin/gitea"] == "" || layer["llm-runner"] != "" {
		t.Errorf("the shared layer has %v", slices.Sorted(maps.Keys(layer)))
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestOldArchivesGo(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{"set-kept.tar": 48 * time.Hour, "set-young.tar": time.Hour, "set-old.tar": 48 * time.Hour, "debian-old.tar": 48 * time.Hour, "part-debian-1.tar": 0, "lock": 48 * time.Hour} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "packing-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := sweep(dir, now.Add(-unused), filepath.Join(dir, "set-kept.tar")); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if !slices.Equal(left, []string{"lock", "set-kept.tar", "set-young.tar"}) {
		t.Errorf("left: %v", left)
	}
	if !taken(filepath.Join(dir, "set-kept.tar")) || taken(filepath.Join(dir, "none")) {
		t.Error("what is there is not taken, or what is not there is")
	}
	if err := sweep(dir, now.Add(-unused)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "set-kept.tar")); err != nil {
		t.Errorf("one that was taken just now is gone: %v", err)
	}
}
