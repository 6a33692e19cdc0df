package library

import (
	"context"
	"slices"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
)

func findsOne(t *testing.T, l *Library, query string) bool {
	t.Helper()
	hits, err := l.Search(t.Context(), query, 2)
	if err != nil {
		t.Fatal(err)
	}
	return len(hits) == 1
}

// While a book is read, however long that takes, notes are indexed, documents put and what was put is settled. The book is there when it has
// been read, and one that was excluded meanwhile is not.
func TestNothingWaitsForABook(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "book.pdf": "%PDF-1.4 a book about walruses", "drafts/other.pdf": "%PDF-1.4 a book about zebras"})
	reading, read := make(chan string), make(chan bool)
	l, err := New(t.Context(), Config{DB: database(t), Source: at(t, dir), Read: func(ctx context.Context, _ extract.Format, data []byte) (extract.Text, error) {
		select {
		case reading <- string(data):
		case <-ctx.Done():
			return extract.Text{}, ctx.Err()
		}
		select {
		case <-read:
		case <-ctx.Done():
			return extract.Text{}, ctx.Err()
		}
		return extract.Text{Body: string(data)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	bounded, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	<-reading
	until(t, "the note beside the book is found", func() bool { return findsOne(t, l, "apples") })
	write(t, dir, "b.md", "bananas")
	until(t, "a note is found that was saved while a book is read", func() bool { return findsOne(t, l, "bananas") })
	if err := l.Put(bounded, Web, Document{Path: "https://example.org", Text: []byte("cherries")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(bounded); err != nil || !findsOne(t, l, "cherries") {
		t.Error("what was put is not found while a book is read:", err)
	}
	if s := l.Status(); !s.Syncing || s.Reading != "book.pdf" || !s.Synced.IsZero() {
		t.Errorf("while it is read: %+v", s)
	}
	read <- true
	<-reading
	until(t, "the book is found", func() bool { return findsOne(t, l, "walruses") })
	if err := l.Exclude(t.Context(), "drafts"); err != nil {
		t.Fatal(err)
	}
	until(t, "a look leaves the second book out", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, is := l.books["drafts/other.pdf"]
		return !is
	})
	read <- true
	until(t, "all is read", func() bool { s := l.Status(); return !s.Syncing && !s.Synced.IsZero() && s.Reading == "" })
	if findsOne(t, l, "zebras") {
		t.Error("a book that was excluded while it was read is in the index")
	}
}

// Reading everything again reads the books again too, and a look meanwhile does not make it forget which are left.
func TestReindexReadsEveryBook(t *testing.T) {
	var times []string
	l, err := New(t.Context(), Config{DB: database(t), Source: at(t, folder(t, map[string]string{"a.pdf": "%PDF-1.4 apples", "b.pdf": "%PDF-1.4 bananas"})),
		Read: func(_ context.Context, _ extract.Format, data []byte) (extract.Text, error) {
			times = append(times, string(data[9:]))
			return extract.Text{Body: string(data)}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	syncNow(t, l)
	if _, err := l.pass(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if l.missed(time.Now().Add(48 * time.Hour)) {
		t.Error("what is under way is taken for missed")
	}
	r, err := l.Sync(t.Context())
	if want := []string{"apples", "bananas", "apples", "bananas"}; err != nil || !slices.Equal(times, want) || r.Changed != 2 {
		t.Errorf("%q, %+v, %v", times, r, err)
	}
	if r, err = l.Sync(t.Context()); err != nil || len(times) != 4 || r.Changed != 0 {
		t.Errorf("%q, %+v, %v", times, r, err)
	}
}

func TestThePauseBetweenTwoLooksIsShort(t *testing.T) {
	for _, x := range []struct{ walked, want time.Duration }{{time.Millisecond, 5 * time.Second}, {time.Second, 20 * time.Second}, {time.Hour, time.Minute}} {
		if got := pause(5*time.Second, x.walked); got != x.want {
			t.Errorf("after %s: %s, want %s", x.walked, got, x.want)
		}
	}
}
