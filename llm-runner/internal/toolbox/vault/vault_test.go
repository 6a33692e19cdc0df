package vault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

type bench struct {
	*Vault
	dir, kept string
	box       *toolbox.Box
}

func newBench(t *testing.T) *bench {
	t.Helper()
	top := t.TempDir()
	b := &bench{dir: filepath.Join(top, "notes"), kept: filepath.Join(top, "versions")}
	b.put(t, "garden.md", "---\ntitle: Garden\ntags:\n  - plants\n  - home\naliases: [plot]\n---\n# Garden\n\nFerns.\n\n## Plans\n\n- a pond\n\n## Done\n\n- a wall\n")
	b.put(t, "../outside.md", "outside secret")
	b.put(t, ".obsidian/app.md", "hidden")
	b.put(t, "_queue/x.md", "a job")
	for link, to := range map[string]string{"link.md": "../outside.md", "folder": "..", "inner.md": "garden.md", "abs.md": filepath.Join(top, "outside.md")} {
		if err := os.Symlink(to, filepath.Join(b.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	b.Vault = New(Config{Path: b.dir, Versions: b.kept, Closed: []string{"_queue", "_active"}})
	d, err := db.Open(t.Context(), filepath.Join(top, "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if b.box, err = toolbox.Open(t.Context(), d, toolbox.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := b.box.Add(b.Tools()...); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) put(t *testing.T, p, text string) {
	t.Helper()
	full := filepath.Join(b.dir, p)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) get(t *testing.T, p string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// call makes a call and says yes where a person is asked.
func (b *bench) call(t *testing.T, tool, format string, args ...any) (asked, done toolbox.Call) {
	t.Helper()
	asked, err := b.box.Submit(t.Context(), toolbox.Wish{Tool: tool, Arguments: fmt.Sprintf(format, args...)})
	if err != nil {
		t.Fatal(err)
	}
	done = asked
	if asked.State == toolbox.Waiting {
		if done, err = b.box.Decide(t.Context(), asked.ID, true); err != nil {
			t.Fatal(err)
		}
	}
	if done, err = b.box.Execute(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	return asked, done
}

// What a model writes, and what a page says, runs nowhere; what the person runs in a note stays when a model writes it anew.
func TestNothingThatIsWrittenRuns(t *testing.T) {
	b := newBench(t)
	const evil = "Ferns `$= evil()`.\n\n```dataviewjs\nevil()\n```\n<% evil() %>\n"
	const still = "Ferns `\\$= evil()`.\n\n```text dataviewjs\nevil()\n```\n< % evil() %>\n"
	const mine = "# Tasks\n\n- ```tasks\n  not done\n  ```\n\nDue `= this.due`\n"
	b.put(t, "mine.md", mine)
	b.put(t, "more.md", mine)
	for _, tt := range []struct{ tool, path, text, want string }{
		{"vault_write", "new.md", evil, still},
		{"vault_append", "garden.md", evil, still},
		{"vault_write", "mine.md", mine + evil, mine + still},
		{"vault_append", "more.md", evil, mine + still},
	} {
		asked, done := b.call(t, tt.tool, `{"path":%q,"text":%q}`, tt.path, tt.text)
		if got := b.get(t, tt.path); done.IsError || !strings.HasSuffix(got, tt.want) || !strings.Contains(asked.Preview, "text dataviewjs") {
			t.Errorf("%s %s: %q\n%+v", tt.tool, tt.path, got, done)
		}
	}
	if err := b.Put("report.md", evil); err != nil || b.get(t, "report.md") != still {
		t.Errorf("%q, %v", b.get(t, "report.md"), err)
	}
	p, err := b.Save("web", "Ferns", "example.org", "https://example.org/<% evil() %>", "", evil, time.Time{}, time.Now())
	if got := b.get(t, p); err != nil || !strings.HasSuffix(got, still) || strings.Contains(got, "<%") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingLeavesTheVault(t *testing.T) {
	b := newBench(t)
	for _, p := range []string{"../outside.md", "/etc/passwd", "folder/outside.md", "link.md", "abs.md", "garden.md/../../outside.md", ".obsidian/app.md", "a/.hidden.md", "./garden.md",
		"", "a\x00.md", `..\outside.md`, "garden", "folder/../../outside.md", "run.sh", strings.Repeat("x", 300) + ".md"} {
		for tool, arguments := range map[string]string{"vault_read": `{"path":%q}`, "vault_write": `{"path":%q,"text":"owned"}`, "vault_append": `{"path":%q,"text":"owned"}`} {
			if asked, done := b.call(t, tool, arguments, p); !done.IsError || strings.Contains(done.Result, "secret") || strings.Contains(asked.Preview, "secret") {
				t.Errorf("%s %q: %+v", tool, p, done)
			}
		}
	}
	if got := b.get(t, "../outside.md"); got != "outside secret" {
		t.Errorf("outside: %q", got)
	}
	if _, done := b.call(t, "vault_search", `{"text":"secret"}`); !strings.Contains(done.Result, "No note") {
		t.Errorf("found %q", done.Result)
	}
	if _, done := b.call(t, "vault_search", `{"text":"secret","folder":"folder"}`); strings.Contains(done.Result, "outside secret") {
		t.Errorf("found %q", done.Result)
	}
	for _, p := range []string{"_queue/new.md", "_QUEUE/new.md", "_active/x.md", "inner.md"} {
		if _, done := b.call(t, "vault_write", `{"path":%q,"text":"x"}`, p); !done.IsError {
			t.Errorf("%s was written", p)
		}
	}
}

func TestALinkThatIsPutThereAfterTheLookLeadsNowhere(t *testing.T) {
	b := newBench(t)
	b.put(t, "later/x.md", "old\n")
	asked, err := b.box.Submit(t.Context(), toolbox.Wish{Tool: "vault_append", Arguments: `{"path":"later/x.md","text":"owned"}`})
	if err != nil || asked.State != toolbox.Waiting {
		t.Fatalf("%+v, %v", asked, err)
	}
	outside := filepath.Join(filepath.Dir(b.dir), "elsewhere")
	if err := os.Rename(filepath.Join(b.dir, "later"), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(b.dir, "later")); err != nil {
		t.Fatal(err)
	}
	if asked, err = b.box.Decide(t.Context(), asked.ID, true); err != nil {
		t.Fatal(err)
	}
	if done, err := b.box.Execute(t.Context(), asked); err != nil || !done.IsError {
		t.Errorf("%+v, %v", done, err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "x.md")); err != nil || string(text) != "old\n" {
		t.Errorf("outside: %q, %v", text, err)
	}
}

func TestAWriteShowsADiffKeepsWhatWasAndPreservesFrontmatter(t *testing.T) {
	b := newBench(t)
	before := b.get(t, "garden.md")
	asked, done := b.call(t, "vault_write", `{"path":"garden.md","text":"# Garden\n\nFerns and moss.\n"}`)
	if asked.State != toolbox.Waiting || !strings.Contains(asked.Preview, "-Ferns.\n") || !strings.Contains(asked.Preview, "+Ferns and moss.\n") || strings.Contains(asked.Preview, "-title") {
		t.Errorf("asked %+v", asked)
	}
	if done.IsError || b.get(t, "garden.md") != "---\ntitle: Garden\ntags:\n  - plants\n  - home\naliases: [plot]\n---\n# Garden\n\nFerns and moss.\n" {
		t.Errorf("%+v: %q", done, b.get(t, "garden.md"))
	}
	kept, err := filepath.Glob(filepath.Join(b.kept, "garden.md", "*.md"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != before {
		t.Errorf("kept %q, %v", text, err)
	}
	if st, err := os.Stat(filepath.Join(b.dir, "garden.md")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(b.dir, ".llm-runner-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if asked, _ := b.call(t, "vault_write", `{"path":"new/note.md","text":"Hello"}`); !strings.HasPrefix(asked.Preview, "A new note, new/note.md") || b.get(t, "new/note.md") != "Hello\n" {
		t.Errorf("asked %+v", asked)
	}
	if _, done := b.call(t, "vault_write", `{"path":"new/note.md","text":"Hello"}`); !done.IsError {
		t.Error("nothing new was written")
	}
	if _, done := b.call(t, "vault_write", `{"path":"new/note.md","text":" "}`); !done.IsError {
		t.Error("a note was emptied")
	}
}

func TestAnApprovalIsForWhatWasShown(t *testing.T) {
	for _, tool := range []string{"vault_write", "vault_append"} {
		b := newBench(t)
		asked, err := b.box.Submit(t.Context(), toolbox.Wish{Tool: tool, Arguments: `{"path":"garden.md","text":"mine"}`})
		if err != nil {
			t.Fatal(err)
		}
		b.put(t, "garden.md", "the person wrote this meanwhile\n")
		if asked, err = b.box.Decide(t.Context(), asked.ID, true); err != nil {
			t.Fatal(err)
		}
		if done, err := b.box.Execute(t.Context(), asked); err != nil || !done.IsError || !strings.Contains(done.Result, "changed") || b.get(t, "garden.md") != "the person wrote this meanwhile\n" {
			t.Errorf("%s: %+v, %v", tool, done, err)
		}
	}
}

func TestWhatIsAllowedWithoutAWordIsDoneInTurn(t *testing.T) {
	b := newBench(t)
	if err := b.box.SetPolicy(t.Context(), "vault_append", 0, toolbox.Allow); err != nil {
		t.Fatal(err)
	}
	var all []toolbox.Call // a model calls twice at once
	for _, text := range []string{"one", "two"} {
		c, err := b.box.Submit(t.Context(), toolbox.Wish{Tool: "vault_append", Arguments: `{"path":"log.md","text":"` + text + `"}`})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		if done, err := b.box.Execute(t.Context(), c); err != nil || done.IsError {
			t.Errorf("%+v, %v", done, err)
		}
	}
	if got := b.get(t, "log.md"); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

func TestTextIsAddedAtTheEndOrInASection(t *testing.T) {
	b := newBench(t)
	if asked, done := b.call(t, "vault_append", `{"path":"garden.md","text":"- a bench","heading":"plans"}`); done.IsError || !strings.Contains(asked.Preview, "+- a bench") ||
		!strings.Contains(b.get(t, "garden.md"), "## Plans\n\n- a pond\n- a bench\n\n## Done") {
		t.Errorf("%+v: %s", done, b.get(t, "garden.md"))
	}
	b.call(t, "vault_append", `{"path":"garden.md","text":"- a gate","heading":"## Done"}`)
	b.call(t, "vault_append", `{"path":"garden.md","text":"The end."}`)
	if got := b.get(t, "garden.md"); !strings.HasSuffix(got, "## Done\n\n- a wall\n- a gate\nThe end.\n") || !strings.HasPrefix(got, "---\ntitle: Garden\n") {
		t.Errorf("got %s", got)
	}
	if _, done := b.call(t, "vault_append", `{"path":"garden.md","text":"x","heading":"Nowhere"}`); !done.IsError {
		t.Error("added to a section that is not there")
	}
	if _, done := b.call(t, "vault_append", `{"path":"log.md","text":"first"}`); done.IsError || b.get(t, "log.md") != "first\n" {
		t.Errorf("%+v", done)
	}
}

func TestFrontmatterIsMergedByKeys(t *testing.T) {
	for _, c := range []struct{ old, text, want string }{
		{"body", "new", "new"},
		{"---\na: 1\n---\nbody", "new", "---\na: 1\n---\nnew"},
		{"---\na: 1\n---", "new", "---\na: 1\n---\nnew"},
		{"---\na: 1\nb:\n  - x\n# note\nc: 3\n---\nbody", "---\na: 2\n---\nnew", "---\nb:\n  - x\n# note\nc: 3\na: 2\n---\nnew"},
		{"---\na: 1\n---\nbody", "---\na: 2\n---\nnew", "---\na: 2\n---\nnew"},
		{"---\nnever closed\nbody", "new", "new"},
		{"---\r\na: 1\r\n---\r\nbody", "new", "---\r\na: 1\r\n---\r\nnew"},
	} {
		if got := preserve(c.old, c.text); got != c.want {
			t.Errorf("%q over %q: %q", c.text, c.old, got)
		}
	}
}

func FuzzPreserve(f *testing.F) {
	f.Add("---\na: 1\n---\nb", "---\nc: 1\n---\nd")
	f.Fuzz(func(t *testing.T, old, text string) {
		if _, body := front(text); !strings.HasSuffix(preserve(old, text), strings.TrimLeft(body, "\n")) {
			t.Error("the text is not the note's end")
		}
	})
}

func TestOldVersionsAreBounded(t *testing.T) {
	b := newBench(t)
	for i := range mostKept + 5 {
		if err := b.Write("garden.md", "", func(string, bool) (string, error) { return fmt.Sprintf("version %d\n", i), nil }); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := filepath.Glob(filepath.Join(b.kept, "garden.md", "*.md"))
	if err != nil || len(kept) != mostKept {
		t.Errorf("kept %d, %v", len(kept), err)
	}
}

func TestNotesAreReadInPiecesAndFound(t *testing.T) {
	b := newBench(t)
	b.put(t, "long.md", strings.Repeat("a line of the note\n", 3000))
	_, done := b.call(t, "vault_read", `{"path":"long.md"}`)
	if done.IsError || !strings.Contains(done.Result, "call again with from=") {
		t.Errorf("%.200s", done.Result)
	}
	if _, done = b.call(t, "vault_read", `{"path":"long.md","from":2999}`); strings.Count(done.Result, "a line") != 2 {
		t.Errorf("%s", done.Result)
	}
	if _, done = b.call(t, "vault_search", `{"text":"A POND"}`); !strings.Contains(done.Result, "garden.md:14: - a pond") {
		t.Errorf("%s", done.Result)
	}
	if _, done = b.call(t, "vault_search", `{"text":"line of"}`); !strings.Contains(done.Result, "only the first") {
		t.Errorf("%.300s", done.Result)
	}
	path, err := b.Save("web", `A "title": of/a page`, "example.org", "https://example.org/x", "", "# Text", time.Time{}, time.Unix(0, 0).UTC())
	if err != nil || path != "web/example.org/a-title-of-a-page.md" || !strings.HasPrefix(b.get(t, path), "---\ntitle: \"A \\\"title\\\": of/a page\"\nsource: ") {
		t.Errorf("%s, %v", path, err)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if specs, err := b.box.Specs(context.Background(), 0, nil); err != nil || len(specs) != 0 {
		t.Errorf("without a vault: %v, %v", specs, err)
	}
}

func TestWhatNoModelIsToSeeIsNeitherReadNorFound(t *testing.T) {
	b := newBench(t)
	b.put(t, "private/diary.md", "canary ferns\n")
	b.Vault.c.Hidden = func(p string) bool { return strings.HasPrefix(p, "private/") || p == "inner.md" }
	for _, p := range []string{"private/diary.md", " private/diary.md ", "inner.md"} {
		if _, done := b.call(t, "vault_read", `{"path":%q}`, p); !done.IsError || !strings.Contains(done.Result, "vault.never_send") || strings.Contains(done.Result, "erns") {
			t.Errorf("%q: %+v", p, done)
		}
	}
	for text, want := range map[string]string{"ferns": "garden.md:10: Ferns.", "canary": "No note has these words.", "diary": "No note has these words."} {
		if _, done := b.call(t, "vault_search", `{"text":%q}`, text); !strings.Contains(done.Result, want) || strings.Contains(done.Result, "diary") ||
			!strings.Contains(done.Result, "never sent to models were not looked at") {
			t.Errorf("%q: %q", text, done.Result)
		}
	}
	// A change is shown to the person, and told to the model without what stands there.
	if asked, done := b.call(t, "vault_append", `{"path":"private/diary.md","text":"more"}`); !strings.Contains(asked.Preview, "canary") || done.Result != "Written: private/diary.md" {
		t.Errorf("%q, %q", asked.Preview, done.Result)
	}
}
