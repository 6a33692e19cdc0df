package jobs

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A box is an inbox on a vault of its own, whose passes and clock the test drives.
type box struct {
	*testing.T
	*Inbox
	s   *Service
	dir string
	now time.Time
}

func newBox(t *testing.T, f func(ctx context.Context, req llm.Request, n int) (string, error)) *box {
	s, _ := newService(t, f)
	b := &box{T: t, s: s, dir: t.TempDir(), now: time.Now()}
	b.restart()
	b.pass()
	return b
}

// restart forgets what the inbox knows beside the database.
func (b *box) restart() {
	f := DefaultFolders
	f.Vault = b.dir
	b.s.config.Folders = &f
	b.Inbox = NewInbox(b.s)
}

func (b *box) write(p, text string) {
	b.Helper()
	p = filepath.Join(b.dir, p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

func (b *box) writeAt(p, text string, at time.Time) {
	b.Helper()
	b.write(p, text)
	if err := os.Chtimes(filepath.Join(b.dir, p), at, at); err != nil {
		b.Fatal(err)
	}
}

func (b *box) read(p string) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, p))
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// move is what a person does in a file manager.
func (b *box) move(from, to string) {
	b.Helper()
	if err := os.Rename(filepath.Join(b.dir, from), filepath.Join(b.dir, to)); err != nil {
		b.Fatal(err)
	}
}

// files lists a vault's files.
func (b *box) files() []string { return vaultFiles(b.T, b.dir) }

func vaultFiles(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			p, err = filepath.Rel(dir, p)
			all = append(all, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// pass lets a moment go by and looks once.
func (b *box) pass() {
	b.Helper()
	if err := b.try(); err != nil {
		b.Fatal(err)
	}
}

func (b *box) try() error {
	b.now = b.now.Add(10 * time.Millisecond)
	_, err := b.Inbox.pass(context.Background(), b.now)
	return err
}

// settle looks, lets the files settle, and looks again.
func (b *box) settle() {
	b.Helper()
	b.pass()
	b.now = b.now.Add(settled)
	b.pass()
}

// end waits for a job's end, and has it shown.
func (b *box) end(id int64, states ...State) Job {
	b.Helper()
	reach(b.T, b.s, id, append(states, Done)...)
	b.pass()
	j, err := b.s.Job(context.Background(), id)
	if err != nil {
		b.Fatal(err)
	}
	return j
}

func (b *box) has(want ...string) {
	b.Helper()
	if got := b.files(); !slices.Equal(got, want) {
		b.Fatalf("the vault has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// stamped replaces the moment in a note's name, and the rest that differs from run to run.
func noteOf(b *box, j Job) (name, text string) {
	b.Helper()
	moment := j.Ended.Local().Format("20060102-150405")
	text = b.read(j.Note)
	for _, changes := range []string{"created: ", "duration: ", "waited: "} {
		if i := strings.Index(text, changes); i >= 0 {
			end := strings.IndexByte(text[i:], '\n')
			text = text[:i] + changes + "X" + text[i+end:]
		}
	}
	return strings.Replace(j.Note, moment, "MOMENT", 1), text
}

func TestADroppedFileBecomesAJobAndItsAnswerANote(t *testing.T) {
	b := newBox(t, echo)
	const file = "---\ntype: text\npriority: 2\ntitle: Tides\n---\n\nWhen is high tide?\n"
	b.write("_queue/tides.md", file)
	b.settle()
	if got := b.read("_active/tides.md"); got != file {
		t.Errorf("the active file is %q", got)
	}
	j := b.end(1)
	if j.Priority != 2 || j.Title != "Tides" || j.Prompt != "When is high tide?" || j.Dropped != "tides.md" || j.File != "_completed/tides.md" {
		t.Errorf("%+v", j)
	}
	b.has("_completed/tides.md", j.Note)
	name, text := noteOf(b, j)
	if name != "runner-outputs/MOMENT-tides.md" {
		t.Error(name)
	}
	if want := "---\ngenerated: true\njob: 1\ntype: text\ntitle: \"Tides\"\nmodel: \"m\"\nprovider: \"p\"\ninput_tokens: 10\noutput_tokens: 2\n" +
		"cost_usd: 0.000007\nduration: X\nwaited: X\nrule: \"r\"\nwhy: \"w\"\ncreated: X\nprompt: \"[[_completed/tides]]\"\n---\n\n&lt;When is high tide?>\n"; text != want {
		t.Errorf("the note is\n%s", text)
	}
	link := strings.TrimSuffix(j.Note, ".md")
	if got, want := b.read("_completed/tides.md"), "---\ntype: text\npriority: 2\ntitle: Tides\njob: 1\nresult: \"[["+link+"]]\"\n---\n\nWhen is high tide?\n"; got != want {
		t.Errorf("the completed file is\n%s", got)
	}
	b.restart()
	b.settle()
	b.has("_completed/tides.md", j.Note)
}

func TestAFileCountsOnceItIsUnchangedForTwoSeconds(t *testing.T) {
	b := newBox(t, echo)
	step := func(d time.Duration, want string) {
		t.Helper()
		b.now = b.now.Add(d - 10*time.Millisecond)
		b.pass()
		if _, err := os.Stat(filepath.Join(b.dir, want)); err != nil {
			t.Fatal(err)
		}
	}
	b.write("_queue/a.md", "half of")
	step(10*time.Millisecond, "_queue/a.md")
	step(1900*time.Millisecond, "_queue/a.md")
	old := time.Now().Add(-time.Hour)
	b.writeAt("_queue/a.md", "half of a sentence", old)
	step(200*time.Millisecond, "_queue/a.md")
	step(1900*time.Millisecond, "_queue/a.md")
	b.writeAt("_queue/.a.md.tmp", "another, as long..", old) // as editors and Syncthing save: another file under the same name
	b.move("_queue/.a.md.tmp", "_queue/a.md")
	step(200*time.Millisecond, "_queue/a.md")
	step(1900*time.Millisecond, "_queue/a.md")
	step(100*time.Millisecond, "_active/a.md")
	if j := b.end(1); j.Prompt != "another, as long.." {
		t.Error(j.Prompt)
	}
}

func TestWhatIsNotDroppedByAPersonIsLeftAlone(t *testing.T) {
	b := newBox(t, echo)
	names := []string{".hidden.md", ".syncthing.a.md.tmp", "~syncthing~a.md.tmp", "~lock.md", "#a.md", "a.md~", "a.md.swp", "b.reason.md", "picture.png", "sub/a.md", ".llm-runner.tmp"}
	var want []string
	for _, n := range names {
		b.write("_queue/"+n, "x")
		want = append(want, "_queue/"+n)
	}
	b.settle()
	slices.Sort(want)
	b.has(want...)
}

func TestTheSameNameTwiceLosesNothing(t *testing.T) {
	wait := make(chan struct{})
	b := newBox(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		select {
		case <-wait:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		return echo(ctx, req, n)
	})
	b.write("_queue/plan.md", "first")
	b.settle()
	b.write("_queue/plan.md", "second")
	b.settle()
	b.has("_active/plan 2.md", "_active/plan.md")
	close(wait)
	b.end(1)
	b.end(2)
	b.write("_queue/plan.md", "third")
	b.settle()
	b.end(3)
	var prompts, answers []string
	for _, f := range b.files() {
		text := b.read(f)
		if strings.HasPrefix(f, "_completed/") {
			_, _, body, _ := cutFront([]byte(text))
			prompts = append(prompts, f+": "+string(body))
		} else {
			answers = append(answers, strings.TrimSpace(text[strings.LastIndex(text, "---")+3:]))
		}
	}
	slices.Sort(answers)
	if got := fmt.Sprint(prompts); got != "[_completed/plan 2.md: second _completed/plan 3.md: third _completed/plan.md: first]" {
		t.Error(got)
	}
	if got := fmt.Sprint(answers); got != "[&lt;first> &lt;second> &lt;third>]" {
		t.Error(got)
	}
}

func TestABadFileGoesToTheFailedFolderWithASentenceForEachFault(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no end", "---\ntype: text\n\nDo it.", []string{"line 1: the frontmatter that begins here has no end: write a line of three dashes (---) after its last key"}},
		{"unknown key", "---\nmodle: x\n---\nDo it.", []string{`line 2: modle: unknown key; did you mean "model"?`}},
		{"empty", "", []string{"prompt: is empty: write what is to be done"}},
		{"empty below", "---\ntype: text\n---\n \n", []string{"prompt: is empty: write what is to be done"}},
		{"type", "---\n# a poem\ntype: poem\n---\nx", []string{`line 3: type: "poem" is not one of text, chain, research`}},
		{"values", "---\npriority: 12\ndeadline: soon\nmax_attempts: many\nproject: perhaps\nnotify: often\nrequires_davas: true\nrequires: contabo\n---\nx", []string{
			"line 2: priority: 12 is not between 1 (first) and 9 (last)",
			`line 3: deadline: "soon" is not a duration: write 90m or 12h`,
			`line 4: max_attempts: "many" is not a whole number`,
			`line 5: project: "perhaps" is not true or false`,
			`line 6: notify: "often" is not one of always, success, failure`,
			`line 7: requires_davas: contradicts requires: "contabo"; keep requires and remove this line`}},
		{"plan", "---\ntype: research\nplan: perhaps\n---\nx", []string{`line 3: plan: "perhaps" is not one of ask, auto`}},
		{"plan of a text", "---\nplan: ask\n---\nx", []string{"line 2: plan: only research has a plan"}},
		{"output", "---\noutput: ../../etc/passwd.md\n---\nx", []string{`line 2: output: "../../etc/passwd.md" leads out of the vault: write a path below the vault`}},
		{"output in the queue", "---\noutput: _queue/x.md\n---\nx", []string{`line 2: output: "_queue/x.md" is in _queue, which belongs to the job files`}},
		{"not text", "---\ntype: text\n---\nx\n\xff", []string{"line 5: the byte 0xff is not UTF-8 text: save the file as UTF-8"}},
		{"utf-16", "\xff\xfex\x00", []string{"line 1: the file is UTF-16 text: save it as UTF-8"}},
		{"no steps", "---\ntype: chain\n---\nx", []string{"prompt: has no step: begin each step of a chain with a heading of level 2"}},
		{"large", strings.Repeat("x", maxPrompt+1), []string{"prompt: has 4194305 bytes, more than 4194304: shorten it"}},
		{"larger", strings.Repeat("x", maxFile+1), []string{"the file has 4259841 bytes, more than 4259840: shorten it"}},
		{"yaml", "---\ntype: [\n---\nx", []string{"line 2: not YAML: did not find expected node content"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, echo)
			b.write("_queue/bad.md", c.text)
			b.settle()
			b.has("_failed/bad.md", "_failed/bad.reason.md")
			if b.read("_failed/bad.md") != c.text {
				t.Error("its bytes are others")
			}
			says := b.read("_failed/bad.reason.md")
			for _, w := range c.want {
				if !strings.Contains(says, "* "+w) {
					t.Errorf("it does not say %q:\n%s", w, says)
				}
			}
			if n := strings.Count(says, "\n* "); n != len(c.want) {
				t.Errorf("%d faults:\n%s", n, says)
			}
			if all, err := b.s.Counts(t.Context()); err != nil || len(all) > 0 {
				t.Error(all, err)
			}
		})
	}
}

func TestALinkInTheQueueIsNotFollowed(t *testing.T) {
	b := newBox(t, echo)
	b.write("secret.md", "do not send this anywhere")
	if err := os.Symlink("../secret.md", filepath.Join(b.dir, "_queue/x.md")); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.has("_failed/x.md", "_failed/x.reason.md", "secret.md")
	if says := b.read("_failed/x.reason.md"); !strings.Contains(says, "* the file is a link: put the file itself here") {
		t.Error(says)
	}
}

func TestAFolderThatIsALinkIsNotUsed(t *testing.T) {
	b := newBox(t, echo)
	for _, f := range []string{"_queue", "_active", "_failed"} {
		if err := os.Remove(filepath.Join(b.dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	b.write("notes/a.md", "a note")
	if err := os.Symlink("notes", filepath.Join(b.dir, "_queue")); err != nil {
		t.Fatal(err)
	}
	if err := b.try(); err == nil || !strings.Contains(err.Error(), "_queue is a file or a link, not a folder: make it one") {
		t.Error(err)
	}
	b.has("_queue", "notes/a.md")
}

func TestAFixedFileGoesOnWithoutItsOldReason(t *testing.T) {
	b := newBox(t, echo)
	for range 2 {
		b.write("_queue/a.md", "---\nno: 1\n---\nx")
		b.settle()
		b.has("_failed/a.md", "_failed/a.reason.md")
		b.move("_failed/a.md", "_queue/a.md")
		b.settle()
		b.has("_failed/a.md", "_failed/a.reason.md")
		b.move("_failed/a.md", "_queue/a.md")
	}
	b.write("_queue/a.md", "x")
	b.settle()
	j := b.end(1)
	b.has("_completed/a.md", j.Note)
	b.move("_completed/a.md", "_queue/a.md") // done files can be dropped again as they are
	b.settle()
	j2 := b.end(2)
	if j2.Prompt != "x" || j2.Title != "a" || strings.Count(b.read("_completed/a.md"), "job: ") != 1 {
		t.Errorf("%+v\n%s", j2, b.read("_completed/a.md"))
	}
}

func TestSyncthingConflictsLoseNothing(t *testing.T) {
	const copyName = "plan.sync-conflict-20260301-120000-ABC1234.md"
	b := newBox(t, echo)
	b.write("_queue/"+copyName, "the phone's words")
	b.write("_queue/plan.md", "the laptop's words")
	b.settle()
	b.has("_active/plan.md", "_queue/"+copyName) // the original first
	b.pass()
	b.end(1)
	if j := b.end(2); j.Prompt != "the phone's words" || j.File != "_completed/"+copyName {
		t.Errorf("%+v", j)
	}
	b.write("_queue/"+copyName, "the laptop's words")
	b.settle()
	if says := b.read("_failed/" + strings.TrimSuffix(copyName, ".md") + ".reason.md"); !strings.Contains(says, "copy of plan.md with the same content, which is job 1 already: nothing is lost") {
		t.Error(says)
	}
	if n, err := b.s.Counts(t.Context()); err != nil || n[Done] != 2 || len(n) != 1 {
		t.Error(n, err)
	}
}

func refuseFirst(_ context.Context, req llm.Request, n int) (string, error) {
	if n == 1 {
		return "", &llm.Error{Kind: llm.Spend, Provider: "p", Message: "your credit is used up."}
	}
	return "at last", nil
}

func TestAFailedJobsFileComesBackWithARetry(t *testing.T) {
	b := newBox(t, refuseFirst)
	b.write("_queue/a.md", "x")
	b.settle()
	j := b.end(1, Failed)
	b.has("_failed/a.md", "_failed/a.reason.md")
	if says := b.read("_failed/a.reason.md"); j.File != "_failed/a.md" || !strings.Contains(says, "was job 1, and it failed: ") || !strings.Contains(says, "your credit is used up.\n") ||
		!strings.Contains(says, "`llm-runner job retry 1`") || !strings.Contains(says, "reason_for: \"[[_failed/a]]\"") {
		t.Errorf("%+v\n%s", j, says)
	}
	if _, err := b.s.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	j = b.end(1)
	b.has("_completed/a.md", j.Note)
}

func TestARetriedJobsFileIsActiveWhileItRuns(t *testing.T) {
	wait := make(chan struct{})
	b := newBox(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		if n == 2 {
			<-wait
		}
		return refuseFirst(ctx, req, n)
	})
	b.write("_queue/a.md", "x")
	b.settle()
	b.end(1, Failed)
	b.write("_active/a.md", "a stranger's") // the name is taken: nothing is overwritten
	if _, err := b.s.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.pass()
	b.has("_active/a 2.md", "_active/a.md")
	close(wait)
	j := b.end(1)
	b.has("_active/a.md", "_completed/a 2.md", j.Note)
}

func TestACancelledJobsFileSaysSo(t *testing.T) {
	b := newBox(t, func(ctx context.Context, _ llm.Request, _ int) (string, error) {
		<-ctx.Done()
		return "", context.Cause(ctx)
	})
	b.write("_queue/a.md", "x")
	b.settle()
	reach(t, b.s, 1, Running)
	if _, err := b.s.Cancel(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.end(1, Cancelled)
	b.has("_failed/a.md", "_failed/a.reason.md")
	if says := b.read("_failed/a.reason.md"); !strings.Contains(says, "was job 1, and a person cancelled it.") {
		t.Error(says)
	}
}

func TestTheAnswerGoesWhereItIsWantedAndOverwritesNothing(t *testing.T) {
	b := newBox(t, echo)
	b.write("plans/trip.md", "mine")
	b.write("a file", "")
	b.write("_queue/a.md", "---\noutput: plans/trip.md\n---\nx")
	b.settle()
	j := b.end(1)
	b.has("_completed/a.md", "a file", "plans/trip 2.md", "plans/trip.md")
	if j.Note != "plans/trip 2.md" || b.read("plans/trip.md") != "mine" {
		t.Errorf("%+v", j)
	}
	// A job from elsewhere, into a folder that is not there yet, and where there can be no folder.
	submit(t, b.s, Spec{Prompt: "y", Output: "new/deep/y.md"})
	b.end(2)
	b.read("new/deep/y.md")
	submit(t, b.s, Spec{Prompt: "z", Output: "a file/z.md"})
	if j := b.end(3); !strings.HasPrefix(j.Note, "runner-outputs/") {
		t.Errorf("%+v", j)
	}
	submit(t, b.s, Spec{Prompt: "without a wish there is no note"})
	if j := b.end(4); j.Note != "" {
		t.Errorf("%+v", j)
	}
	b.s.config.Folders = nil
	if _, _, err := b.s.Submit(t.Context(), Spec{Prompt: "x", Output: "x.md"}, ""); err == nil || !strings.Contains(err.Error(), "there are no vault folders") {
		t.Error(err)
	}
}

func TestAnOutputThroughALinkStaysInTheOutputsFolder(t *testing.T) {
	b := newBox(t, echo)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(b.dir, "out")); err != nil {
		t.Fatal(err)
	}
	submit(t, b.s, Spec{Prompt: "y", Output: "out/y.md"})
	if j := b.end(1); !strings.HasPrefix(j.Note, "runner-outputs/") {
		t.Errorf("%+v", j)
	}
	if got := vaultFiles(t, outside); len(got) > 0 {
		t.Error(got)
	}
}

func TestWhileTheVaultIsAwayJobsGoOnAndLaterItShowsThem(t *testing.T) {
	b := newBox(t, echo)
	b.write("_queue/a.md", "x")
	b.settle()
	away := b.dir + " is away"
	if err := os.Rename(b.dir, away); err != nil {
		t.Fatal(err)
	}
	reach(t, b.s, 1, Done)
	if err := b.try(); err == nil {
		t.Error("nothing is wrong")
	}
	if err := os.Mkdir(b.dir, 0o755); err != nil { // where it is mounted there is an empty folder
		t.Fatal(err)
	}
	if err := b.try(); err == nil || !strings.Contains(err.Error(), "is the vault mounted?") {
		t.Error(err)
	}
	b.has()
	if err := os.Remove(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, b.dir); err != nil {
		t.Fatal(err)
	}
	j := b.end(1)
	b.has("_completed/a.md", j.Note)
}

func TestAFileThatTheDatabaseRefusedIsSubmittedLater(t *testing.T) {
	b := newBox(t, echo)
	if _, err := b.s.db.Writer().Exec("CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(FAIL, 'disk I/O error'); END"); err != nil {
		t.Fatal(err)
	}
	b.write("_queue/a.md", "x")
	b.pass()
	b.now = b.now.Add(settled)
	if err := b.try(); err == nil {
		t.Error("nothing is wrong")
	}
	b.has("_active/a.md")
	if _, err := b.s.db.Writer().Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	b.pass()
	j := b.end(1)
	b.has("_completed/a.md", j.Note)
}

func TestAFileTakenOutOfTheVaultStopsNothing(t *testing.T) {
	wait := make(chan struct{})
	b := newBox(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
		<-wait
		return echo(ctx, req, n)
	})
	b.write("_queue/a.md", "x")
	b.settle()
	if err := os.Remove(filepath.Join(b.dir, "_active/a.md")); err != nil {
		t.Fatal(err)
	}
	b.write("_queue/a.md", "another")
	b.settle()
	b.has("_active/a 2.md")
	close(wait)
	one, two := b.end(1), b.end(2)
	b.has(append([]string{"_completed/a 2.md"}, sorted(one.Note, two.Note)...)...)
	if one.File != "" || strings.Contains(b.read(one.Note), "prompt:") {
		t.Errorf("%+v", one)
	}
}

func sorted(all ...string) []string { slices.Sort(all); return all }

func TestOneJobsTroubleDoesNotKeepTheOthersFromTheVault(t *testing.T) {
	b := newBox(t, echo)
	b.write("_queue/a.md", "x")
	b.write("_queue/b.md", "y")
	b.settle()
	reach(t, b.s, 1, Done)
	reach(t, b.s, 2, Done)
	if _, err := b.s.db.Writer().Exec("CREATE TRIGGER one BEFORE UPDATE OF note ON jobs WHEN new.id = 1 BEGIN SELECT RAISE(FAIL, 'no'); END"); err != nil {
		t.Fatal(err)
	}
	if err := b.try(); err == nil || !strings.Contains(err.Error(), "job 1: ") {
		t.Error(err)
	}
	if j, err := b.s.Job(t.Context(), 2); err != nil || j.File != "_completed/b.md" || j.Note == "" {
		t.Errorf("%+v, %v", j, err)
	}
	if _, err := b.s.db.Writer().Exec("DROP TRIGGER one"); err != nil {
		t.Fatal(err)
	}
	if j := b.end(1); j.File != "_completed/a.md" {
		t.Errorf("%+v", j)
	}
}

func TestAFaultOfTheVaultIsToldOnceAndItsEndToo(t *testing.T) {
	b := newBox(t, echo)
	var told strings.Builder
	b.log = slog.New(slog.NewTextHandler(&told, nil))
	for range 3 {
		b.tell(syscall.ENOSPC)
	}
	if says, since := b.Fault(); says != "no space left on device" || since.IsZero() {
		t.Error(says, since)
	}
	b.tell(nil)
	b.tell(nil)
	if says, _ := b.Fault(); says != "" {
		t.Error(says)
	}
	if n := strings.Count(told.String(), "\n"); n != 2 || !strings.Contains(told.String(), "work again") {
		t.Error(told.String())
	}
}
