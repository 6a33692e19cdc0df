//go:build prove

package precheck

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres/postgrestest"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/seal"
)

const stateKey = "0123456789abcdef0123456789abcdef"

// A house is a machine whose services are backed up to a real S3, with a real PostgreSQL and real Git repositories.
type house struct {
	t     *testing.T
	dir   string
	repos map[string]restic.Repo
	run   backup.Run
	site  Site
	out   *outside
}

func (h *house) git(args ...string) {
	h.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// push makes a commit in Gitea's repository.
func (h *house) push(text string) {
	h.t.Helper()
	restictest.Write(h.t, h.dir, map[string]string{"work/a": text})
	h.git("-C", h.dir+"/work", "add", "a")
	h.git("-C", h.dir+"/work", "commit", "-qm", text)
	h.git("-C", h.dir+"/work", "push", "-q", h.dir+"/gitea/git/repositories/me/notes.git", "HEAD:main")
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), repos: restictest.S3(t), out: newOutside(t)}
	db := postgrestest.Start(t)
	postgrestest.SQL(t, db, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, db, "shop", "CREATE TABLE a AS SELECT generate_series(1, 1000) n")
	h.git("init", "-q", "--bare", "-b", "main", h.dir+"/gitea/git/repositories/me/notes.git")
	h.git("init", "-q", "-b", "main", h.dir+"/work")
	h.push("first")
	h.git("-C", h.dir+"/gitea/git/repositories/me/notes.git", "pack-refs", "--all")
	for i := range 20 {
		restictest.Write(t, h.dir, map[string]string{"vault/n" + string(rune('a'+i)) + ".md": strings.Repeat("a note ", i+1)})
	}
	sealed, err := seal.Seal(stateKey, []byte(h.out.state))
	if err != nil {
		t.Fatal(err)
	}
	env := func(key string) string {
		return strings.Join(h.repos[key].Env, "\n") + "\n"
	}
	password, err := os.ReadFile(h.repos["restore"].PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	restictest.Write(t, h.dir, map[string]string{"sealed": string(sealed), "kit/fast.password": string(password), "kit/fast.env": env("restore"), "kit/state.key": stateKey + "\n"})

	describe := func(name string, paths []catalog.Path, dumps []catalog.Dump) catalog.Service {
		return catalog.Service{Name: name, Host: "h", Backup: catalog.Backup{RPO: map[string]time.Duration{"fast": 26 * time.Hour}, Paths: paths, Dumps: dumps}}
	}
	vault := describe("vault", []catalog.Path{{Path: h.dir + "/vault"}}, nil)
	vault.Restore.Tags = []string{"vault"}
	gitea := describe("gitea", []catalog.Path{{Path: h.dir + "/gitea"}}, []catalog.Dump{{Name: "postgres", Kind: "postgres", User: "tester", Major: db.Major, Databases: []string{"shop"}}})
	state := describe(StateService, nil, []catalog.Dump{{Name: "prod.tfstate.sealed", Kind: "command", Run: []string{"cp", h.dir + "/sealed", "{file}"}, Back: []string{"true"}}})
	all := []catalog.Service{vault, gitea, state}
	fast, err := catalog.TierNamed("fast")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.repos["backup"].Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.run = backup.Run{Tier: fast, Host: "h", Services: all, Repo: h.repos["backup"], State: h.dir + "/state", Dumps: h.dir + "/dumps", Compose: []string{"true"},
		Postgres: db.Env, Say: func(string) {}}
	h.site = Site{Host: "h", Catalog: all, Dumps: h.dir + "/dumps", Kit: h.dir + "/kit", Files: 6, Now: time.Now, Say: func(string) {},
		Repo: func(string) (restic.Repo, error) { return h.repos["restore"], nil },
		KitRepo: func(string) (restic.Repo, error) {
			r := h.repos["restore"]
			r.PasswordFile, r.Cache = h.dir+"/kit/fast.password", h.dir+"/kit-cache"
			return r, nil
		},
		State: func(ctx context.Context) ([]byte, error) {
			return FetchState(ctx, h.out.URL+"/state", "me", "hush-token")
		}}
	return h
}

func (h *house) backup() {
	h.t.Helper()
	report, err := h.run.Do(h.t.Context())
	if err != nil || report.Trouble() != "" {
		h.t.Fatal(err, report.Trouble())
	}
}

// signs looks at one of the twelve.
func (h *house) signs(number int, want string) {
	h.t.Helper()
	l := &look{Site: h.site, snapshots: map[string][]restic.Snapshot{}, errs: map[string]error{}}
	l.read(h.t.Context())
	s := l.one(h.t.Context(), number, looks[number-1].name, looks[number-1].look)
	signed := !strings.HasPrefix(want, "not: ")
	if s.Signed != signed || !strings.Contains(s.Evidence, strings.TrimPrefix(want, "not: ")) || strings.Contains(s.Evidence+s.Cure, "hush") {
		h.t.Errorf("%d, want %q: %+v", number, want, s)
	}
}

func (h *house) write(name, text string) {
	h.t.Helper()
	restictest.Write(h.t, h.dir, map[string]string{name: text})
}

func TestWhatIsInTheBackupIsLookedAtForReal(t *testing.T) {
	h := newHouse(t)
	h.backup()
	h.signs(5, "opened with the kit's password and key")
	h.signs(6, "1 databases and 1 other dumps")
	h.signs(7, "1 repositories, 2 refs")
	h.signs(8, "6 of ")
	h.signs(10, "serial 7")

	// The kit.
	password, err := os.ReadFile(h.dir + "/kit/fast.password")
	if err != nil {
		t.Fatal(err)
	}
	h.write("kit/fast.password", "another password")
	h.signs(5, "not: the kit does not open the repository")
	h.write("kit/fast.password", string(password))
	h.write("kit/state.key", strings.Repeat("x", 32))
	h.signs(10, "not: cannot be opened with the kit's key")
	h.write("kit/state.key", stateKey)

	// What came after the backup.
	h.out.state = strings.Replace(h.out.state, "7", "8", 1)
	h.signs(10, "not: something was applied since")
	h.out.state = strings.Replace(strings.Replace(h.out.state, "8", "7", 1), `"x"`, `"y"`, 1)
	h.signs(10, "not: another state")
	h.push("second")
	h.signs(7, "not: refs/heads/main of git/repositories/me/notes.git is newer")

	// A disk that lies: content changed, and the time of it did not.
	files, err := filepath.Glob(h.dir + "/vault/*.md")
	if err != nil || len(files) != 20 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("rot"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(f, st.ModTime(), st.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	h.site.Files = 1000 // all of them
	h.signs(8, "not: came back different")
	for _, f := range files {
		if err := os.Chtimes(f, time.Time{}, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	h.signs(8, "20 that changed since were passed over")
	h.site.Files = 6

	// A dump that does not match its manifest, as a snapshot of somebody who could add one.
	dumps := h.dir + "/dumps/gitea/postgres"
	h.write("dumps/gitea/postgres/manifest.json", `{"globals":{"name":"globals.sql","bytes":1,"sha256":"00"},"databases":[]}`)
	h.write("dumps/gitea/postgres/globals.sql", "x")
	forge := func() {
		t.Helper()
		if _, err := h.repos["backup"].Backup(t.Context(), restic.Backup{Host: "h", Tags: []string{"tier:fast", "svc:gitea"}, Paths: []string{h.dir + "/dumps/gitea"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	forge()
	h.signs(6, "not: globals.sql is not what its manifest names")
	if err := os.Remove(dumps + "/manifest.json"); err != nil {
		t.Fatal(err)
	}
	forge()
	h.signs(6, "not: it has no manifest")

	// And the next backup makes it right.
	h.backup()
	h.signs(6, "1 databases")
	h.signs(7, "1 repositories")
	h.signs(8, "fetched and equal")
}
