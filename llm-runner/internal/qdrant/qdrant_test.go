package qdrant_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/qdrant"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/internal/vector/storetest"
)

// serve returns a fake server and where it is.
func serve(t *testing.T, s script.Script) (*fake.Qdrant, string) {
	t.Helper()
	f, err := fake.NewQdrant(s)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, srv.URL
}

func TestQdrantKeepsTheContractOfStores(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() vector.Store {
		_, url := serve(t, script.Script{Key: "secret-key"})
		return func() vector.Store { return qdrant.New(qdrant.Config{URL: url, Key: "secret-key"}) }
	})
}

// TestARealQdrantKeepsTheContractOfStores runs where QDRANT_URL names a server (QDRANT_KEY its key). It works below a prefix
// of its own and removes what it made.
func TestARealQdrantKeepsTheContractOfStores(t *testing.T) {
	url := os.Getenv("QDRANT_URL")
	if url == "" {
		t.Skip("QDRANT_URL is not set")
	}
	storetest.Run(t, func(t *testing.T) func() vector.Store {
		var b [6]byte
		rand.Read(b[:])
		c := qdrant.Config{URL: url, Key: os.Getenv("QDRANT_KEY"), Prefix: "test_" + hex.EncodeToString(b[:]) + "_"}
		t.Cleanup(func() {
			if err := qdrant.New(c).RemoveAll(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return func() vector.Store { return qdrant.New(c) }
	})
}

// TestQdrantKeepsTheContractWhileRequestsFail has every seventh request or so fail in one way or another.
func TestQdrantKeepsTheContractWhileRequestsFail(t *testing.T) {
	if testing.Short() {
		t.Skip("waits between tries")
	}
	for _, kind := range []script.FaultKind{script.Busy, script.ResetBeforeHeaders} {
		t.Run(string(kind), func(t *testing.T) {
			_, url := serve(t, script.Script{Seed: 3, Faults: []script.Fault{{Kind: kind, Chance: 0.15}}})
			s := qdrant.New(qdrant.Config{URL: url})
			defer s.Close()
			c := open(t, s)
			for i := range 20 {
				e := vector.Entry{Document: vector.Document{Name: "a.md", Version: string(rune('a' + i))}}
				e.Points = []vector.Point{{ID: uint64(i), Vector: []float32{1, float32(i), 0, 0}}}
				if err := c.Replace(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 10})
			if err != nil || len(hits) != 1 || hits[0].ID != 19 {
				t.Error(hits, err)
			}
		})
	}
}

var stamp = vector.Stamp{Model: "m", Dimensions: 4}

func open(t *testing.T, s *qdrant.Store) *qdrant.Collection {
	t.Helper()
	c, err := s.Build(t.Context(), "vault", stamp)
	if err == nil {
		err = s.Switch(t.Context(), "vault", stamp)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.(*qdrant.Collection)
}

// note returns a document of one point whose words are those of its text.
func note(name string, id uint64, v []float32, text string, tags ...string) vector.Entry {
	return vector.Entry{Document: vector.Document{Name: name, Version: "1", Tags: tags},
		Points: []vector.Point{{ID: id, Vector: v, Words: qdrant.Say(strings.Fields(text), 4)}}}
}

func ids(hits []vector.Hit) (all []uint64) {
	for _, h := range hits {
		all = append(all, h.ID)
	}
	return all
}

func TestWordsAndMeaningAreSearchedApartAndTogether(t *testing.T) {
	_, url := serve(t, script.Script{})
	c := open(t, qdrant.New(qdrant.Config{URL: url}))
	err := c.Replace(t.Context(),
		note("both.md", 1, []float32{1, 0.2, 0, 0}, "the blue boat on the sea"),
		note("meaning.md", 2, []float32{1, 0, 0, 0}, "a ship"),
		note("words.md", 3, []float32{0, 1, 0, 0}, "the boat boat", "x"),
		note("neither.md", 4, []float32{0, 0, 1, 0}, "the other thing"),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		q    vector.Question
		want []uint64
	}{
		{"words", vector.Question{Query: vector.Query{Limit: 5}, Words: qdrant.Ask([]string{"boat"})}, []uint64{3, 1}},
		{"a rare word outweighs a frequent one", vector.Question{Query: vector.Query{Limit: 1}, Words: qdrant.Ask([]string{"the", "ship"})}, []uint64{2}},
		{"words with a filter", vector.Question{Query: vector.Query{Limit: 5, Filter: vector.Filter{Tags: [][]string{{"x"}}}}, Words: qdrant.Ask([]string{"boat"})}, []uint64{3}},
		{"meaning", vector.Question{Query: vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 2}}, []uint64{2, 1}},
		{"both", vector.Question{Query: vector.Query{Vector: []float32{1, 0.1, 0, 0}, Limit: 1}, Words: qdrant.Ask([]string{"blue", "boat"})}, []uint64{1}},
		{"a word that nobody used", vector.Question{Query: vector.Query{Limit: 5}, Words: qdrant.Ask([]string{"xyzzy"})}, nil},
	} {
		hits, err := c.Search(t.Context(), test.q)
		if got := ids(hits); err != nil || len(got) != len(test.want) {
			t.Errorf("%s: %v, %v", test.name, got, err)
			continue
		}
		for i, id := range ids(hits) {
			if id != test.want[i] {
				t.Errorf("%s: %v, want %v", test.name, ids(hits), test.want)
			}
		}
	}
}

// A Replace that dies half-way leaves a document that does not look up to date, and the next one heals it. What was asked last is done
// though nobody waits for it any more.
func TestAReplaceThatWasCutShortShowsAndHeals(t *testing.T) {
	for at := int64(1); at <= 3; at++ { // upsert, delete, markers
		f, err := fake.NewQdrant(script.Script{})
		if err != nil {
			t.Fatal(err)
		}
		var left atomic.Int64 // requests until the caller goes
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left.Add(-1) != 0 {
				f.ServeHTTP(w, r)
				return
			}
			defer close(done)
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			cancel()
			<-r.Context().Done()
			r.Body = io.NopCloser(bytes.NewReader(body))
			f.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		c := open(t, qdrant.New(qdrant.Config{URL: srv.URL}))
		if err := c.Replace(t.Context(), note("a.md", 1, []float32{1, 0, 0, 0}, "old")); err != nil {
			t.Fatal(err)
		}
		left.Store(at)
		next := note("a.md", 2, []float32{1, 0, 0, 0}, "new")
		next.Version = "2"
		if err := c.Replace(ctx, next); !errors.Is(err, context.Canceled) {
			t.Fatalf("it was not cut short: %v", err)
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatal("the server does not see that the caller went")
		}
		docs, err := c.Documents(t.Context())
		if err != nil || len(docs) == 1 && docs[0].Version == "2" && at < 3 {
			t.Errorf("cut short at %d: %v, %v", at, docs, err)
		}
		if err := c.Replace(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		hits, err := c.Query(t.Context(), vector.Query{Vector: []float32{1, 0, 0, 0}, Limit: 9})
		if err != nil || len(hits) != 1 || hits[0].ID != 2 {
			t.Error(at, hits, err)
		}
	}
}

func TestOnlyWhatHasThePrefixIsRemoved(t *testing.T) {
	_, url := serve(t, script.Script{})
	mine, other := qdrant.New(qdrant.Config{URL: url, Prefix: "eval_a_"}), qdrant.New(qdrant.Config{URL: url})
	open(t, mine)
	open(t, other)
	if err := mine.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Serving(t.Context(), "vault"); !errors.Is(err, vector.ErrNone) {
		t.Error(err)
	}
	if _, err := other.Serving(t.Context(), "vault"); err != nil {
		t.Error(err)
	}
}

func TestSnapshotsAreMadeAndOldOnesRemoved(t *testing.T) {
	_, url := serve(t, script.Script{})
	s := qdrant.New(qdrant.Config{URL: url})
	open(t, s)
	var last qdrant.Snapshot
	for range 4 {
		var err error
		if last, err = s.Snapshot(t.Context(), "vault", 2); err != nil || last.Bytes == 0 || !strings.HasPrefix(last.Collection, "runner_vault_") {
			t.Fatal(last, err)
		}
	}
	left, err := qdrant.Snapshots(t, s, last.Collection)
	if err != nil || len(left) != 2 || left[1] != last.Name {
		t.Error(left, last.Name, err)
	}
}

func TestErrorsSayWhatToDoAndHideTheKey(t *testing.T) {
	_, url := serve(t, script.Script{Key: "the-right-key"})
	_, err := qdrant.New(qdrant.Config{URL: url, Key: "a-wrong-key-12345"}).Serving(t.Context(), "vault")
	if err == nil || !strings.Contains(err.Error(), "QDRANT__SERVICE__API_KEY") || strings.Contains(err.Error(), "a-wrong-key-12345") {
		t.Error(err)
	}
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Auth {
		t.Error(err)
	}
	_, html := serve(t, script.Script{Faults: []script.Fault{{Kind: script.HTML200}}})
	if _, err := qdrant.New(qdrant.Config{URL: html}).Serving(t.Context(), "vault"); err == nil || !strings.Contains(err.Error(), "check the address") {
		t.Error(err)
	}
	_, silent := serve(t, script.Script{Faults: []script.Fault{{Kind: script.StallBeforeHeaders}}})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := qdrant.New(qdrant.Config{URL: silent}).Serving(ctx, "vault"); err == nil || time.Since(began) > 5*time.Second {
		t.Error(err, time.Since(began))
	}
	if err := (qdrant.Config{URL: "localhost:6333", Prefix: "Mine!"}).Validate(); err == nil || !strings.Contains(err.Error(), "prefix") || !strings.Contains(err.Error(), "url") {
		t.Error(err)
	}
}

// Several hundred documents go over the wire in requests of a size that the server takes.
func TestWritesAreBatched(t *testing.T) {
	f, url := serve(t, script.Script{})
	c := open(t, qdrant.New(qdrant.Config{URL: url}))
	var all []vector.Entry
	for i := range 600 {
		all = append(all, note(string(rune('a'+i%26))+hex.EncodeToString([]byte{byte(i >> 8), byte(i)}), uint64(i), []float32{1, 0, 0, 0}, "x"))
	}
	before := len(f.Requests())
	if err := c.Replace(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Requests()) - before; n > 12 {
		t.Errorf("%d requests for 600 documents", n)
	}
}
