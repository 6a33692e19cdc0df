package progress

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDatesOfTasksAreReadAsPluginsWriteThem(t *testing.T) {
	for text, want := range map[string][2]string{
		"- [x] a ✅ 2026-01-31":                                           {"", "2026-01-31"},
		"- [x] a ➕ 2026-01-02 📅 2026-02-01 ✅ 2026-01-31":                 {"2026-01-02", "2026-01-31"},
		"- [x] a [created:: 2026-01-02]  [completion:: 2026-01-31]":      {"2026-01-02", "2026-01-31"},
		"- [x] a (created:: 2026-01-02) (completion:: 2026-01-31T10:00)": {"2026-01-02", "2026-01-31"},
		"- [x] a ✅ 2026-02-30":                                           {"", ""},
		"- [x] a ✅\uFE0F 2026-01-31 ✅ 2026-02-01":                        {"", "2026-02-01"},
		"- [x] a completion:: 2026-01-31":                                {"", ""},
		"- [x] done 2026-01-31":                                          {"", ""},
	} {
		task := Parse("a.md", []byte(text)).Phases[0].Tasks[0]
		if task.Created != want[0] || task.Ended != want[1] {
			t.Errorf("%s: made %q, done %q", text, task.Created, task.Ended)
		}
	}
}

const datedNote = `- [x] old ✅ 2026-01-05
- [x] later ➕ 2026-01-07 ✅ 2026-01-09
- [x] nobody says when
- [ ] open ➕ 2026-01-09
- [-] dropped ✅ 2026-01-06
- [ ] always
`

func TestTheDatesInTasksTellAWayUp(t *testing.T) {
	p := Parse("a.md", []byte(datedNote))
	if got := fmt.Sprint(Dates(p, "")); got != "[{2026-01-05 1 3 dates} {2026-01-07 1 4 dates} {2026-01-09 2 5 dates}]" {
		t.Error(got)
	}
	if got := Dates(Parse("a.md", []byte("- [x] a\n- [ ] b\n")), ""); len(got) != 0 {
		t.Errorf("%v of no dates", got)
	}
	seen := []Day{{"2026-01-20", 4, 5, FromSeen}, {"2026-01-21", 5, 5, FromSeen}}
	commits := []Day{{"2026-01-08", 0, 2, FromCommits}, {"2026-01-20", 9, 9, FromCommits}, {"2026-01-22", 3, 5, FromCommits}}
	want := "[{2026-01-05 1 3 dates} {2026-01-07 1 4 dates} {2026-01-08 0 2 commits} {2026-01-20 4 5 seen} {2026-01-21 5 5 seen} {2026-01-22 3 5 commits}]"
	if got := fmt.Sprint(Merge(seen, commits, p)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := fmt.Sprint(Merge(nil, nil, p)); got != fmt.Sprint(Dates(p, "")) {
		t.Error(got)
	}
}

// A repo is a repository in a folder, and the calls of git that a service made.
type repo struct {
	*testing.T
	dir, log string
}

func newRepo(t *testing.T) *repo {
	r := &repo{t, t.TempDir(), filepath.Join(t.TempDir(), "calls")}
	r.git("2026-01-01", "init", "-q", "-b", "main")
	return r
}

func (r *repo) git(day string, args ...string) {
	r.Helper()
	cmd := exec.CommandContext(r.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "GIT_COMMITTER_DATE="+day+"T12:00:00", "GIT_AUTHOR_DATE="+day+"T12:00:00", "TZ=UTC")
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// sign gives the last commit a signature, for whose check git would start gpg.program.
func (r *repo) sign() {
	r.Helper()
	git := func(in string, args ...string) string {
		cmd := exec.CommandContext(r.Context(), "git", args...)
		cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			r.Fatalf("git %v: %v", args, err)
		}
		return string(out)
	}
	head, words, _ := strings.Cut(git("", "cat-file", "commit", "HEAD"), "\n\n")
	const signature = "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n eA==\n -----END PGP SIGNATURE-----\n\n"
	git("", "update-ref", "HEAD", strings.TrimSpace(git(head+signature+words, "hash-object", "-t", "commit", "-w", "--stdin")))
}

func (r *repo) commit(day, file, text string) {
	r.Helper()
	path := filepath.Join(r.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
	r.git(day, "add", "-A")
	r.git(day, "commit", "-q", "-m", "x")
}

// reader reads commits with a git that writes down that it was called.
func (r *repo) reader(dir string) *commits {
	r.Helper()
	script := filepath.Join(r.TempDir(), "git")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$@\" >> '"+r.log+"'\nexec git \"$@\"\n"), 0o755); err != nil {
		r.Fatal(err)
	}
	c := newCommits(dir)
	c.program = script
	return c
}

// calls are what git was asked, in short, since the last time.
func (r *repo) calls() (all []string) {
	text, _ := os.ReadFile(r.log) //nolint:errcheck // there is none before the first call
	os.Remove(r.log)              //nolint:errcheck // likewise
	for line := range strings.Lines(string(text)) {
		for _, word := range []string{"rev-parse", "log", "cat-file"} {
			if strings.Contains(line, " "+word+" ") {
				all = append(all, word)
			}
		}
	}
	return all
}

func read(t *testing.T, c *commits, path string) ([]Day, string) {
	t.Helper()
	if _, _, wait := c.look(path); wait != nil {
		select {
		case <-wait:
		case <-time.After(60 * time.Second):
			t.Fatal("git does not end")
		}
	}
	days, says, _ := c.look(path)
	return days, says
}

func TestCommitsTellAWayUpAndAreReadOnce(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil { // then that is what is said
		if _, says := read(t, newCommits(t.TempDir()), "a.md"); says != "git is not installed, so commits are not read" {
			t.Error(says)
		}
		return
	}
	r := newRepo(t)
	for _, at := range []string{"", "notes/"} { // the folder of the notes may be one of the repository's
		r.commit("2026-01-02", at+"my plan.md", "- [ ] a\n- [ ] b\n")
		r.commit("2026-01-03", at+"my plan.md", "- [x] a\n- [ ] b\n")
		r.commit("2026-01-03", at+"other.md", "- [x] x\n")
		r.commit("2026-01-03", at+"my plan.md", "- [x] a\n- [x] b\n- [ ] c\n")
		r.commit("2026-01-05", at+"my plan.md", "- [x] a\n- [x] b\n- [x] c\n")
		c := r.reader(filepath.Join(r.dir, at))
		now := time.Now()
		c.now = func() time.Time { return now }
		if days, says, wait := c.look("my plan.md"); len(days) != 0 || says != "" || wait == nil {
			t.Errorf("it waited: %v, %q", days, says)
		}
		days, says := read(t, c, "my plan.md")
		if got := fmt.Sprint(days); got != "[{2026-01-02 0 2 commits} {2026-01-03 2 3 commits} {2026-01-05 3 3 commits}]" || says != "" {
			t.Fatalf("%q: %s, %s", at, got, says)
		}
		if got := r.calls(); !slices.Equal(got, []string{"rev-parse", "log", "cat-file"}) {
			t.Errorf("git was asked %v", got)
		}
		for range 20 { // within the minute
			read(t, c, "my plan.md")
		}
		now = now.Add(lookAgain)
		read(t, c, "my plan.md") // after it: one question, for the head
		if got := r.calls(); !slices.Equal(got, []string{"rev-parse"}) {
			t.Errorf("git was asked %v", got)
		}
		r.commit("2026-01-09", at+"my plan.md", "- [x] a\n- [x] b\n- [x] c\n- [ ] d\n")
		now = now.Add(lookAgain)
		if days, _ := read(t, c, "my plan.md"); len(days) != 4 || days[3] != (Day{"2026-01-09", 3, 4, FromCommits}) {
			t.Errorf("%v", days)
		}
		if days, says := read(t, c, "nobody's.md"); len(days) != 0 || says != "" {
			t.Errorf("%v, %s", days, says)
		}
		r.calls()
	}
}

// A page of many projects asks for all of them at once, which is not as many processes at once.
func TestCommitsOfManyNotesAreReadOneAfterTheOther(t *testing.T) {
	c, dir := newCommits(t.TempDir()), t.TempDir()
	c.program = filepath.Join(dir, "git")
	script := "#!/bin/sh\nmkdir '" + dir + "/at-work' || echo two >> '" + dir + "/beside'\nsleep 0.02\necho 0123\nrmdir '" + dir + "/at-work'\n"
	if err := os.WriteFile(c.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var waits []<-chan struct{}
	for i := range 6 {
		_, _, wait := c.look(fmt.Sprintf("%d.md", i))
		waits = append(waits, wait)
	}
	for _, wait := range waits {
		<-wait
	}
	if text, err := os.ReadFile(filepath.Join(dir, "beside")); err == nil {
		t.Errorf("%s", text)
	}
}

func TestWhyThereAreNoCommitsIsSaid(t *testing.T) {
	none := newCommits(t.TempDir())
	none.program = "no-such-program-of-git"
	for want, c := range map[string]*commits{"git is not installed, so commits are not read": none, "the notes are in no folder of yours": newCommits("")} {
		if _, says := read(t, c, "a.md"); says != want {
			t.Errorf("%q", says)
		}
	}
	plain := newCommits(t.TempDir())
	plain.program = "false" // as git does where there is no repository
	if _, says := read(t, plain, "a.md"); !strings.Contains(says, "no git repository") {
		t.Errorf("%q", says)
	}
}

// An object can say any size of itself, and git passes that on: it is no reason to make room for it.
func TestADamagedObjectIsSaidAndNotBelieved(t *testing.T) {
	for _, size := range []string{"99999999999999", "9", "-1", "99999999999999999999999"} {
		c := newCommits(t.TempDir())
		c.program = filepath.Join(t.TempDir(), "git")
		if err := os.WriteFile(c.program, []byte("#!/bin/sh\ncase \"$*\" in *rev-parse*) echo 12;; *\" log \"*) echo 12 1767355200;; *) printf '12 blob "+size+"\\n- [ ] a\\n\\n';; esac\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if days, says := read(t, c, "a.md"); len(days) != 0 || !strings.Contains(says, "the object 12 is damaged") {
			t.Errorf("%s: %v, %q", size, days, says)
		}
	}
}

// What a repository configures is not run: it may come from anywhere.
func TestARepositoryRunsNothing(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		return // nothing runs without it
	}
	r := newRepo(t)
	r.commit("2026-01-02", "a.md", "- [ ] a\n")
	ran, evil := filepath.Join(t.TempDir(), "ran"), filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\ntouch '"+ran+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"core.fsmonitor", "core.pager", "gpg.program", "diff.external", "diff.evil.textconv", "filter.evil.smudge", "core.sshCommand"} {
		r.git("2026-01-02", "config", key, evil) // some are given to a shell, some are not
	}
	r.git("2026-01-02", "config", "log.showSignature", "true")
	r.sign()
	if err := os.WriteFile(filepath.Join(r.dir, ".gitattributes"), []byte("*.md diff=evil filter=evil\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if days, says := read(t, newCommits(r.dir), "a.md"); len(days) != 1 {
		t.Errorf("%v, %s", days, says)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("something ran")
	}
	// A commit of which a part is said to be elsewhere, and a git that does not know how to be told to leave it there.
	old := filepath.Join(t.TempDir(), "git")
	if err := os.WriteFile(old, []byte("#!/bin/sh\nunset GIT_NO_LAZY_FETCH\nexec git \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	objects, err := filepath.Glob(filepath.Join(r.dir, ".git/objects/??/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range objects { // all but the commit
		cmd := exec.CommandContext(t.Context(), "git", "cat-file", "-t", filepath.Base(filepath.Dir(at))+filepath.Base(at))
		cmd.Dir = r.dir
		if kind, err := cmd.Output(); err == nil && strings.TrimSpace(string(kind)) != "commit" {
			os.Remove(at) //nolint:errcheck // it is seen below
		}
	}
	for key, value := range map[string]string{"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true", "remote.origin.uploadpack": "touch " + ran + ";",
		"protocol.allow": "always", "protocol.file.allow": "always", "protocol.ext.allow": "always"} {
		r.git("2026-01-02", "config", key, value)
	}
	for _, url := range []string{r.dir, "ext::sh -c touch% " + ran} {
		r.git("2026-01-02", "config", "remote.origin.url", url)
		c := newCommits(r.dir)
		c.program = old
		if days, says := read(t, c, "a.md"); len(days) != 0 || says == "" {
			t.Errorf("%v, %q", days, says)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Errorf("what is at %s ran", url)
			os.Remove(ran) //nolint:errcheck // for the next
		}
	}
}

func TestATaskIsReadWithoutTheDaysThatStandInIt(t *testing.T) {
	for text, want := range map[string]string{
		"Measure ✅ 2026-09-01 ➕ 2026-08-20":          "Measure",
		"Paint [created:: 2026-10-01] the wall":      "Paint the wall",
		"Pay 📅 2026-10-01 (completion:: 2026-10-02)": "Pay 📅 2026-10-01",
		"✅ 2026-09-01":       "✅ 2026-09-01", // it has no other words
		"Read about ✅ signs": "Read about ✅ signs",
	} {
		if got := (Task{Text: text}).Says(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
