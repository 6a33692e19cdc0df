package library

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"home.arpa/lab/llm-runner/internal/db"
)

func TestWalkLeavesOutWhatIsNotANote(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.md": "# A\n", "sub/b.MD": "b", "sub/c.markdown": "c", "leer.md": "", "d.txt": "d", "e": "e", "f.csv": "f",
		".obsidian/x.md": "x", ".git/x.md": "x", ".trash/x.md": "x", "sub/.hidden/x.md": "x", ".x.md": "x",
		"_queue/x.md": "x", "_active/x.md": "x", "_completed/x.md": "x", "_failed/x.md": "x", "runner-outputs/deep/x.md": "x",
		"sub/_queue/y.md":  "a folder of that name further down is the writer's own",
		"big.md":           strings.Repeat("x", maxNote+1),
		"latin1.md":        "Gr\xfc\xdfe",
		"binary.md":        "\x7fELF\x00\x00",
		"utf16.md":         "\xff\xfeh\x00i\x00",
		"generated.md":     "---\ngenerated: true\n---\nfrom a program\n",
		"not-generated.md": "---\ngenerated: false\n---\nfrom a person\n",
	})
	outside := folder(t, map[string]string{"secret.md": "secret"})
	for name, target := range map[string]string{
		"out.md": filepath.Join(outside, "secret.md"), "in.md": "a.md", "dangling.md": "nowhere", "folder.md": "sub", "loop": ".",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.md"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, at(t, dir))
	if got, want := indexed(t, l), []string{"a.md", "d.txt", "in.md", "leer.md", "not-generated.md", "sub/_queue/y.md", "sub/b.MD", "sub/c.markdown"}; !reflect.DeepEqual(got, want) {
		t.Errorf("notes %q, want %q", got, want)
	}
	want := []Skip{
		{"big.md", "is larger than 5 MB, the most for a text file"},
		{"binary.md", "is no text but a program with another ending"},
		{"dangling.md", "is a link that leads out of the notes or to nothing"},
		{"folder.md", linkedFolder},
		{"generated.md", "was written by a program (generated: true)"},
		{"latin1.md", "is not UTF-8 text"},
		{"loop", linkedFolder},
		{"out.md", "is a link that leads out of the notes or to nothing"},
		{"pipe.md", "is not a regular file"},
		{"utf16.md", "is UTF-16 text; save it as UTF-8"},
	}
	s := l.Status()
	if !reflect.DeepEqual(s.Skipped, want) {
		t.Errorf("skipped %+v\nwant    %+v", s.Skipped, want)
	}
	if s.Notes != 8 || s.Found != 18 || s.Syncing || s.Synced.IsZero() || s.Error != "" {
		t.Errorf("status %+v", s)
	}
}

func TestSyncReadsOnlyWhatHasChanged(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "# A\nalpha\n", "b.md": "# B\nbeta\n", "c.md": "# C\ngamma\n"})
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"a.md", "b.md", "c.md"} {
		touch(t, dir, name, old)
	}
	l := unread(t, at(t, dir))
	step := func(want Report) {
		t.Helper()
		got, err := l.Sync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got.Took, got.walked, got.Skipped = 0, 0, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		s := l.Status()
		again, err := Open(t.Context(), l.db, l.source)
		if err != nil {
			t.Fatal(err)
		}
		if a := again.Status(); a.Notes != s.Notes || a.Passages != s.Passages {
			t.Errorf("the status says %d notes, %d passages; the index has %d and %d", s.Notes, s.Passages, a.Notes, a.Passages)
		}
	}
	step(Report{Added: 3})
	step(Report{Unchanged: 3})

	write(t, dir, "b.md", "# B\ndelta epsilon\n")
	if err := os.Remove(filepath.Join(dir, "c.md")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "new/d.md", "zeta")
	step(Report{Added: 1, Changed: 1, Removed: 1, Unchanged: 1})
	finds(t, l, "epsilon", "b.md")
	finds(t, l, "beta")
	finds(t, l, "gamma")
	finds(t, l, "zeta", "new/d.md")

	// Same size, and a time stamp that does not betray the change, because the file was young when it was read.
	write(t, dir, "new/d.md", "zeto")
	step(Report{Changed: 1, Unchanged: 2})
	finds(t, l, "zeto", "new/d.md")

	touch(t, dir, "a.md", old.Add(time.Minute)) // a new stamp, the same content
	step(Report{Unchanged: 3})

	if err := os.Rename(filepath.Join(dir, "a.md"), filepath.Join(dir, "moved.md")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "new/d.md", "---\ngenerated: true\n---\n")
	step(Report{Added: 1, Changed: 1, Removed: 1, Unchanged: 1})
	finds(t, l, "alpha", "moved.md")
	finds(t, l, "zeto")
}

func TestTheIndexOfAnotherVaultIsNotMixedIn(t *testing.T) {
	d := database(t)
	first, second := folder(t, map[string]string{"a.md": "apples"}), folder(t, map[string]string{"b.md": "bananas"})
	for _, tt := range []struct {
		dir, has, hasNot string
	}{{first, "apples", "bananas"}, {second, "bananas", "apples"}, {first, "apples", "bananas"}} {
		l, err := Open(t.Context(), d, at(t, tt.dir))
		if err != nil {
			t.Fatal(err)
		}
		if s := l.Status(); s.Notes != 0 {
			t.Errorf("begins with %+v", s)
		}
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if hits, err := l.Search(t.Context(), tt.has+" "+tt.hasNot, 10); err != nil || len(hits) != 1 || hits[0].Quote != tt.has {
			t.Errorf("found %+v, %v", hits, err)
		}
	}
	l, err := Open(t.Context(), d, at(t, first))
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); s.Notes != 1 || s.Passages != 1 {
		t.Errorf("opened again: %+v", s)
	}
}

func TestAVaultThatIsGoneLosesNothing(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples"})
	l := open(t, at(t, dir))
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if s := l.Status(); s.Error == "" || s.Notes != 1 {
		t.Errorf("status %+v", s)
	}
	finds(t, l, "apples", "a.md")
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Sync(t.Context()); err != nil || r.Unchanged != 1 || l.Status().Error != "" {
		t.Errorf("%+v, %v, %+v", r, err, l.Status())
	}
}

func TestAFolderThatCannotBeReadKeepsItsNotes(t *testing.T) {
	l := open(t, Source{ID: "x", open: func() (tree, func() error, error) {
		return opened(t, folder(t, map[string]string{"a.md": "apples", "sub/b.md": "bananas"}))
	}})
	l.source.open = func() (tree, func() error, error) {
		tr, done, err := opened(t, folder(t, map[string]string{"a.md": "apples"}))
		return broken{tr}, done, err
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	finds(t, l, "bananas", "sub/b.md")
	if s := l.Status(); len(s.Skipped) != 1 || s.Skipped[0].Path != "sub" {
		t.Errorf("skipped %+v", s.Skipped)
	}
}

// broken lists a folder "sub" that cannot be read.
type broken struct{ tree }

func (b broken) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == "sub" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	all, err := b.tree.ReadDir(name)
	if name == "." {
		info, err := fs.Stat(b.tree, ".")
		if err != nil {
			return nil, err
		}
		all = append(all, misnamed{fs.FileInfoToDirEntry(info)})
	}
	return all, err
}

type misnamed struct{ fs.DirEntry }

func (misnamed) Name() string { return "sub" }

func TestAnInterruptedSyncLeavesWholeNotesAndIsTakenUpAgain(t *testing.T) {
	files := generate(1, 3*batchNotes)
	l := unread(t, at(t, folder(t, files)))
	ctx, cancel := context.WithCancel(t.Context())
	l.source.open = stopping(l.source.open, batchNotes+7, cancel)
	if _, err := l.Sync(ctx); err == nil {
		t.Fatal("the sync went to its end")
	}
	s := l.Status()
	if s.Notes == 0 || s.Notes == len(files) || s.Error != "" {
		t.Errorf("status after the interruption: %+v", s)
	}
	var half int
	if err := l.db.Read().QueryRow(`SELECT count(*) FROM library_notes n WHERE
		(SELECT coalesce(max(end_byte), 0) FROM library_passages WHERE note_id = n.id) <> n.size`).Scan(&half); err != nil || half != 0 {
		t.Errorf("%d notes are half there, %v", half, err)
	}
	if r, err := l.Sync(t.Context()); err != nil || r.Added != len(files)-s.Notes {
		t.Errorf("%+v, %v", r, err)
	}
	if s := l.Status(); s.Notes != len(files) {
		t.Errorf("status %+v", s)
	}
}

// stopping calls stop when the n-th file is read.
func stopping(open func() (tree, func() error, error), n int, stop func()) func() (tree, func() error, error) {
	return func() (tree, func() error, error) {
		tr, done, err := open()
		return &counting{tree: tr, left: &n, stop: stop}, done, err
	}
}

type counting struct {
	tree
	left *int
	stop func()
}

func (c *counting) ReadFile(name string) ([]byte, error) {
	if *c.left--; *c.left == 0 {
		c.stop()
	}
	return c.tree.ReadFile(name)
}

func TestRunFindsChangesAndStops(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples"})
	path := filepath.Join(t.TempDir(), db.Name)
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		l, err := Open(t.Context(), d, at(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		l.watching = false // the system's messages do not come in this bubble's time
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		if s := l.Status(); s.Notes != 1 {
			t.Errorf("not at once: %+v", s)
		}
		write(t, dir, "b.md", "bananas")
		time.Sleep(pollEvery + time.Second)
		synctest.Wait()
		if s := l.Status(); s.Notes != 2 {
			t.Errorf("not after %s: %+v", pollEvery, s)
		}
		write(t, dir, "c.md", "cherries")
		l.nudge()
		l.nudge()
		synctest.Wait()
		if s := l.Status(); s.Notes != 3 {
			t.Errorf("not when nudged: %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What has gone wrong in the index without a file having changed is healed in the night.
func TestTheNightHealsTheIndex(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "b.md": "bananas"})
	path := filepath.Join(t.TempDir(), db.Name)
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		l, err := Open(t.Context(), d, at(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		l.watching, l.every = false, time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		if _, err := d.Writer().Exec(`UPDATE library_passages SET body = 'drifted'`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		for query, note := range map[string]string{"apples": "a.md", "bananas": "b.md"} {
			hits, err := l.Search(ctx, query, 1)
			if err != nil || len(hits) != 1 || hits[0].Path != note || hits[0].Quote != query {
				t.Errorf("after the night %s is %+v, %v", query, hits, err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A night in which nothing ran is made up for at the next start, once.
func TestAMissedNightIsMadeUpFor(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples"})
	path := filepath.Join(t.TempDir(), db.Name)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12 * time.Hour) // noon
		d, err := db.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		drifts := func() {
			t.Helper()
			if _, err := d.Writer().Exec(`UPDATE library_passages SET body = 'drifted'`); err != nil {
				t.Fatal(err)
			}
		}
		run := func(during func(l *Library)) {
			t.Helper()
			l, err := Open(t.Context(), d, at(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			l.watching = false
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			synctest.Wait()
			during(l)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		quoted := func(l *Library) string {
			t.Helper()
			hits, err := l.Search(t.Context(), "apples", 1)
			if err != nil || len(hits) != 1 {
				t.Fatalf("%d hits, %v", len(hits), err)
			}
			return hits[0].Quote
		}
		run(func(*Library) {})
		drifts()
		time.Sleep(8 * time.Hour)
		run(func(l *Library) {
			if q := quoted(l); q != "drifted" {
				t.Error("read again though no night was missed:", q)
			}
		})
		time.Sleep(28 * time.Hour)
		run(func(l *Library) {
			if q := quoted(l); q != "apples" {
				t.Error("the missed night was not made up for:", q)
			}
			drifts()
			time.Sleep(10 * time.Minute)
			if q := quoted(l); q != "drifted" {
				t.Error("made up for twice")
			}
		})
	})
}

// Whether or not the folder is named by a link, and though another program writes there all the time.
func TestChangesAreInTheIndexWithinASecond(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "busy.md": "x"})
	link := filepath.Join(t.TempDir(), "vault")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	l := unread(t, at(t, link))
	l.every = time.Hour // only what is watched is found
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	soon := func(query string, want ...string) {
		t.Helper()
		began := time.Now()
		for {
			hits, err := l.Search(t.Context(), query, 10)
			var got []string
			for _, h := range hits {
				got = append(got, h.Path)
			}
			if err == nil && reflect.DeepEqual(got, want) {
				t.Logf("%s after %s", query, time.Since(began).Round(time.Millisecond))
				return
			}
			if time.Since(began) > 20*time.Second { // one second on a machine that does nothing else
				t.Fatalf("%s finds %q, want %q, %v", query, got, want, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	writing := make(chan struct{})
	defer func() {
		cancel()
		<-writing
	}()
	go func() {
		defer close(writing)
		for tick := time.NewTicker(quiet / 5); ; {
			select {
			case now := <-tick.C:
				os.WriteFile(filepath.Join(dir, "busy.md"), []byte(now.String()), 0o600) //nolint:errcheck // the next one may
			case <-ctx.Done():
				return
			}
		}
	}()
	soon("apples", "a.md")
	heard := func() string {
		hits, err := l.Search(t.Context(), "busy", 1)
		if err != nil || len(hits) == 0 {
			return ""
		}
		return hits[0].Quote
	}
	for range 2 { // the first change may be found by the look at the start
		was := heard()
		until(t, "the watch hears of changes", func() bool { return heard() != was })
	}
	write(t, dir, "new/deep/b.md", "bananas")
	soon("bananas", "new/deep/b.md")
	write(t, dir, "new/deep/b.md", "blueberries")
	soon("blueberries", "new/deep/b.md")
	soon("bananas")
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	soon("blueberries", "old/deep/b.md")
	write(t, dir, "old/deep/c.md", "cherries")
	soon("cherries", "old/deep/c.md")
	if err := os.Remove(filepath.Join(dir, "a.md")); err != nil {
		t.Fatal(err)
	}
	soon("apples")
}

// What the system cannot tell of is told, with the cure, until it can; what belongs to programs is not listened to.
func TestWhatIsNotWatchedIsNamed(t *testing.T) {
	dir := folder(t, map[string]string{"a/b/c.md": "c", ".git/x.md": "x"})
	l := unread(t, at(t, dir))
	var full error = syscall.ENOSPC
	w := &watcher{lib: l, root: dir, refused: map[string]error{}, add: func(p string) error {
		if strings.Contains(p, ".git") {
			t.Error(p, "is watched")
		}
		if p == dir {
			return nil
		}
		return full
	}}
	w.below(dir)
	if s := l.Status(); s.Unwatched != "2 folders: raise fs.inotify.max_user_watches" || !strings.HasSuffix(s.Sentence(), "; changes are not told of at once in "+s.Unwatched) {
		t.Errorf("%q: %s", s.Unwatched, s.Sentence())
	}
	full = nil
	w.below(dir)
	if s := l.Status(); s.Unwatched != "" {
		t.Error("still:", s.Unwatched)
	}
	for name, want := range map[string]bool{"n.md": true, "a/n.pdf": true, "sync.log": false, ".n.md.swp": false, ".git/n.md": false} {
		if got := w.tells(fsnotify.Event{Name: filepath.Join(dir, name), Op: fsnotify.Write}); got != want {
			t.Errorf("writing %s tells: %t", name, got)
		}
	}
	if !w.tells(fsnotify.Event{Name: filepath.Join(dir, "folder"), Op: fsnotify.Create}) {
		t.Error("a new folder is not heard of")
	}
}

func TestWhatIsExcludedLeavesTheIndex(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "drafts/b.md": "bananas", "sub/drafts/c.md": "cherries", "sub/x.tmp.md": "dates", "sub/old/e.md": "elder"})
	l := open(t, at(t, dir))
	for _, step := range []struct {
		do      func() error
		indexed []string
	}{
		{func() error { return l.Exclude(t.Context(), "drafts/") }, []string{"a.md", "sub/old/e.md", "sub/x.tmp.md"}},
		{func() error { return l.Exclude(t.Context(), "*.tmp.md") }, []string{"a.md", "sub/old/e.md"}},
		{func() error { return l.Exclude(t.Context(), "sub/o*/**") }, []string{"a.md"}},
		{func() error { return l.Include(t.Context(), "drafts") }, []string{"a.md", "drafts/b.md", "sub/drafts/c.md"}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := indexed(t, l); !reflect.DeepEqual(got, step.indexed) {
			t.Errorf("with %q excluded: %q, want %q", l.Excluded(), got, step.indexed)
		}
	}
	if _, err := l.Note(t.Context(), "sub/old/e.md"); err == nil {
		t.Error("an excluded note is opened")
	}
	again, err := Open(t.Context(), l.db, l.source)
	if err != nil || !reflect.DeepEqual(again.Excluded(), []string{"*.tmp.md", "sub/o*"}) {
		t.Errorf("opened again: %q, %v", again.Excluded(), err)
	}
	for _, bad := range []string{"", "/", "[", "/etc"} {
		if err := l.Exclude(t.Context(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := l.Include(t.Context(), "nothing"); err == nil {
		t.Error("what is not excluded is taken back")
	}
}

func TestNoteOpensNotesOnly(t *testing.T) {
	dir := folder(t, map[string]string{"sub/a.md": "# Title\r\nx", ".git/config.md": "x", "b.csv": "x"})
	outside := folder(t, map[string]string{"secret.md": "secret"})
	if err := os.Symlink(filepath.Join(outside, "secret.md"), filepath.Join(dir, "out.md")); err != nil {
		t.Fatal(err)
	}
	l := unread(t, at(t, dir))
	n, err := l.Note(t.Context(), "sub/a.md")
	if err != nil || n.Title != "Title" || string(n.Text) != "# Title\r\nx" || n.Path != "sub/a.md" {
		t.Errorf("%+v, %v", n, err)
	}
	rel, err := filepath.Rel(dir, filepath.Join(outside, "secret.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", ".", "/", "none.md", "sub", "b.csv", ".git/config.md", "out.md", rel, "sub/../sub/a.md", "/sub/a.md",
		filepath.Join(outside, "secret.md"), "../" + filepath.Base(outside) + "/secret.md", "sub//a.md", "sub\\a.md", "a\x00.md"} {
		if n, err := l.Note(t.Context(), p); err == nil {
			t.Errorf("%q opened %+v", p, n)
		}
	}
	for _, p := range []string{"../x.md", ".git/config.md", "b.csv", "none.md"} {
		if _, err := l.Note(t.Context(), p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// indexed returns the paths of the notes in the index.
func indexed(t *testing.T, l *Library) []string {
	t.Helper()
	all, err := db.All(t.Context(), l.db.Read(), "list notes", db.Column[string], `SELECT path FROM library_notes WHERE skipped = '' ORDER BY path`)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// finds checks which notes a search finds, in order.
func finds(t *testing.T, l *Library, query string, want ...string) {
	t.Helper()
	hits, err := l.Search(t.Context(), query, 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range hits {
		if len(got) == 0 || got[len(got)-1] != h.Path {
			got = append(got, h.Path)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q finds %q, want %q", query, got, want)
	}
}

func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	return dir
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func touch(t testing.TB, dir, name string, to time.Time) {
	t.Helper()
	if err := os.Chtimes(filepath.Join(dir, name), to, to); err != nil {
		t.Fatal(err)
	}
}

func at(t testing.TB, dir string) Source {
	t.Helper()
	s, err := Dir(dir, "_queue", "_active", "_completed", "_failed", "runner-outputs")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, dir string) (tree, func() error, error) { return at(t, dir).open() }

func TestWhatAProgramWroteIntoANoteIsNotTheOwnersWords(t *testing.T) {
	dir := folder(t, map[string]string{
		"day.md": "# Monday\n\nThe plumber came.\n<!-- generated: briefing -->\n## Briefing\n\n- zebra facts\n<!-- end of generated: briefing -->\n\n- [ ] call him\n\n## Evening\n\nQuiet.\n",
		"cut.md": "mine\n\n<!-- generated: briefing -->\nwhose end is gone: walrus\n",
	})
	l := open(t, at(t, dir))
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int{"zebra": 0, "walrus": 1, "plumber": 1, "quiet": 1} {
		hits, err := l.Search(t.Context(), query, 5)
		if err != nil || len(hits) != want {
			t.Errorf("%s: %d hits, %v", query, len(hits), err)
		}
		if query == "quiet" && len(hits) == 1 && (hits[0].Line != 12 || !strings.Contains(hits[0].Quote, "Quiet.")) {
			t.Errorf("%+v", hits[0])
		}
	}
	tasks, err := l.Holding(t.Context(), "[ ]", 10)
	if err != nil || len(tasks) != 1 || tasks[0].Path != "day.md" || tasks[0].Line != 10 {
		t.Errorf("%+v, %v", tasks, err)
	}
}

func TestTouchedNotesAreTheNewestFirst(t *testing.T) {
	dir := folder(t, map[string]string{"old.md": "# Old", "new.md": "# New", "newer.md": "# Newer", "made.md": "---\ngenerated: true\n---\n", "now.md": "# Now"})
	now := time.Now()
	for name, ago := range map[string]time.Duration{"old.md": 48 * time.Hour, "new.md": 3 * time.Hour, "newer.md": 2 * time.Hour, "made.md": time.Hour} {
		if err := os.Chtimes(filepath.Join(dir, name), now, now.Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, at(t, dir))
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := l.Touched(t.Context(), now.Add(-24*time.Hour), 10)
	if err != nil || len(all) != 3 || all[0].Path != "now.md" || all[1].Title != "Newer" || all[2].Path != "new.md" {
		t.Errorf("%+v, %v", all, err)
	}
}
