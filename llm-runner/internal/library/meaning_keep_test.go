package library

import (
	"context"
	"errors"
	"testing"

	"home.arpa/lab/llm-runner/internal/vector"
)

// brokenStore is a store one collection of which cannot be opened.
type brokenStore struct {
	vector.Store
	name string
}

var errBroken = errors.New("which of them serve cannot be read")

func (b *brokenStore) Serving(ctx context.Context, name string) (vector.Collection, error) {
	if name == b.name {
		return nil, errBroken
	}
	return b.Store.Serving(ctx, name)
}

// A collection that fails holds no other up, whichever comes first, and is tried again.
func TestOneCollectionThatFailsHoldsNoOtherUp(t *testing.T) {
	l, c := open(t, at(t, folder(t, few))), &concepts{}
	minded(t, l, c, "concepts", t.TempDir())
	store := &brokenStore{l.mind.Store, "a-b"}
	l.mind.Store = store
	for _, name := range []string{"a-b", "x_y-z"} {
		if err := l.Put(t.Context(), name, Document{Path: "page in " + name, Text: []byte("The physician is in.\n")}); err != nil {
			t.Fatal(err)
		}
	}
	works := map[string]*work{}
	if err := l.mind.pass(t.Context(), works); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	for collection, want := range map[string]string{Notes: "health.md", "x_y-z": "page in x_y-z"} {
		hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Vector, Filter: Filter{Collection: collection}})
		if err != nil || len(hits) != 1 || hits[0].Path != want {
			t.Errorf("%s: %v, %v", collection, paths(hits), err)
		}
	}
	store.name = ""
	if err := l.mind.pass(t.Context(), works); err != nil {
		t.Fatal(err)
	}
	hits, err := l.Find(t.Context(), Request{Query: "doctor", Limit: 1, Lane: Vector, Filter: Filter{Collection: "a-b"}})
	if err != nil || len(hits) != 1 || l.Status().Meaning.State != MeaningReady {
		t.Errorf("%v, %v, %+v", paths(hits), err, l.Status().Meaning)
	}
}
