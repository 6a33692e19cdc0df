package library

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"home.arpa/lab/llm-runner/internal/vector"
)

// Erase is Forget for what must leave nothing behind. When it returns the documents are out of the tables, their words out of the segments
// and their vectors out of the store's files; the database's own files are for db.Scrub. Documents that are not there are no error. It waits
// for a look at the files that is under way, as long as ctx lets it.
func (l *Library) Erase(ctx context.Context, collection string, paths ...string) error {
	for _, path := range paths {
		if _, err := l.documents.Forget(ctx, collection, path); err != nil {
			return err
		}
	}
	if err := l.syncing.Lock(ctx); err != nil {
		return err
	}
	defer l.syncing.Unlock()
	if err := l.syncDocuments(ctx, false); err != nil {
		return err
	}
	if err := l.purge(ctx); err != nil { // an earlier look may have died between the two
		return err
	}
	l.mu.Lock()
	unread := l.unread
	l.mu.Unlock()
	l.count(unread)
	if err := l.mind.erase(ctx, collection, paths); err != nil {
		return fmt.Errorf("erase vectors: %w", err)
	}
	return nil
}

// purge writes every segment anew that holds words of notes which are gone. The caller holds syncing.
func (l *Library) purge(ctx context.Context) error {
	for at := 0; ; {
		all := l.words.Load().segments
		for at < len(all) && all[at].lost == 0 {
			at++
		}
		if at == len(all) {
			return nil
		}
		one := merge(all[at : at+1])
		if err := replace(ctx, l.db, all[at:at+1], one); err != nil {
			return err
		}
		next := slices.Clone(all[:at])
		if len(one.passages) > 0 {
			next = append(next, one)
		}
		l.words.Store(newIndex(append(next, all[at+1:]...)))
	}
}

// erase takes documents out of the collection that serves. One that is being built beside it follows by itself: see portion.
func (m *mind) erase(ctx context.Context, collection string, paths []string) error {
	if m == nil {
		return nil
	}
	c, err := m.Store.Serving(ctx, collection)
	if errors.Is(err, vector.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.Delete(ctx, paths...); err != nil {
		return err
	}
	return m.mended(collection, compact(ctx, c))
}

// compact has a collection's files hold nothing any more of what was deleted, where it keeps such; elsewhere its server sees to that.
func compact(ctx context.Context, c vector.Collection) error {
	if files, ok := c.(interface{ Compact(context.Context) error }); ok {
		return files.Compact(ctx)
	}
	return c.Save(ctx)
}
