package library

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/vector"
)

// crashDir names the folder in which a child process indexes and embeds until it is killed.
const crashDir = "LIBRARY_CRASH_DIR"

// crashLibrary opens the library of dir's notes, with its vectors.
func crashLibrary(t *testing.T, dir string) (l *Library, done func()) {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	source, err := Dir(filepath.Join(dir, "notes"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err = Open(t.Context(), d, source); err != nil {
		t.Fatal(err)
	}
	store := vector.NewLocal(filepath.Join(dir, "vectors"))
	e := embed.New(d, &concepts{}, embed.Config{Model: "concepts"})
	l.Understand(Meaning{Store: store, Embedder: func(context.Context, vector.Stamp) (*embed.Embedder, error) { return e, nil }})
	return l, func() {
		store.Close()
		d.Close()
	}
}

// TestCrashChild is the process that is killed: it indexes and embeds at once, and again from the beginning when all is done.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only as a child")
	}
	l, _ := crashLibrary(t, dir)
	go l.mind.run(context.Background())
	before := l.words.Load()
	go func() { // begun is when the first batch is written: what kills it then finds it at work
		for l.words.Load() == before {
			runtime.Gosched()
		}
		fmt.Println("begun")
	}()
	for {
		if _, err := l.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// kills is how often; 200 in make prove.
var kills = 8

// TestKilledWhileIndexingAndEmbedding kills the process that does both, again and again in the same folder: each note is in the index wholly
// or not at all, words and vectors both, and in the end all are there.
func TestKilledWhileIndexingAndEmbedding(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	const notes, sections = 60, 4
	text := func(n, version int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "# Note %d\n", n)
		for s := range sections {
			fmt.Fprintf(&b, "\n## Section %d\n\nmark%dv%ds%d %s\n", s, n, version, s, strings.Repeat("The automobile and the bakery. ", 20))
		}
		return b.String()
	}
	if err := os.Mkdir(filepath.Join(dir, "notes"), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range notes {
		write(t, filepath.Join(dir, "notes"), fmt.Sprintf("n%d.md", n), text(n, 0))
	}
	r := rand.New(rand.NewPCG(5, 5))
	for kill := range kills {
		n := r.IntN(notes)
		write(t, filepath.Join(dir, "notes"), fmt.Sprintf("n%d.md", n), text(n, kill+1))
		killedAfter(t, dir, time.Duration(r.IntN(150_000))*time.Microsecond)
		l, done := crashLibrary(t, dir)
		wholeNotes(t, l, sections)
		done()
		if t.Failed() {
			t.Fatalf("after kill %d", kill)
		}
	}
	l, done := crashLibrary(t, dir)
	defer done()
	syncNow(t, l)
	embedNow(t, l)
	if s := l.Status(); s.Notes != notes || s.Meaning.Notes != notes {
		t.Errorf("%+v", s)
	}
	if wholeNotes(t, l, sections) != notes {
		t.Error("some notes have no vectors")
	}
}

func killedAfter(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	c.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait() //nolint:errcheck // it was killed
	limit := time.AfterFunc(60*time.Second, func() { c.Process.Kill() })
	defer limit.Stop()
	if n, err := out.Read(make([]byte, 6)); n == 0 {
		t.Fatal("the child did not begin:", err)
	}
	time.Sleep(after)
	c.Process.Kill() //nolint:errcheck // it may have ended
}

// wholeNotes checks that every note that the index knows has all of its passages, found by their words, and that every document of the vectors
// has a vector for each passage that it was made of. It returns how many documents have the vectors of the note as it is.
func wholeNotes(t *testing.T, l *Library, sections int) (current int) {
	t.Helper()
	want, err := versions(t.Context(), l.db, Notes)
	if err != nil {
		t.Fatal(err)
	}
	for path := range want {
		n := Note{Collection: Notes, Path: path} // as the index has it, which may be older than the file
		if _, err := readExtracted(t.Context(), l.db, &n); err != nil {
			t.Fatal(err)
		}
		found, versions := 0, map[string]bool{}
		for s := range sections {
			_, rest, _ := strings.Cut(string(n.Text), fmt.Sprintf("## Section %d\n\n", s))
			mark, _, ok := strings.Cut(rest, " ")
			if !ok {
				t.Errorf("%s is in the index without section %d", path, s)
				continue
			}
			versions[mark[:strings.LastIndexByte(mark, 's')]] = true
			hits, err := l.Find(t.Context(), Request{Query: mark, Limit: 5, Lane: Words})
			if err != nil {
				t.Fatal(err)
			}
			found += len(hits)
		}
		if found != sections || len(versions) != 1 {
			t.Errorf("%s is in the index with %d of %d sections, of %d versions", path, found, sections, len(versions))
		}
	}
	c, err := l.mind.Store.Serving(t.Context(), Notes)
	if err != nil {
		return 0 // none has been stored
	}
	docs, err := c.Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if damaged, err := c.(*vector.Index).Check(t.Context()); len(damaged) > 0 || err != nil {
		t.Error("damaged:", damaged, err)
	}
	for _, d := range docs {
		if d.Points < sections || d.Points > sections+1 {
			t.Errorf("%s has %d vectors", d.Name, d.Points)
		}
		if want[d.Name] == d.Version {
			current++
		}
	}
	return current
}
