// Package pgvector keeps vectors in the PostgreSQL database that holds everything else, where the server has the extension
// vector (https://github.com/pgvector/pgvector; tried with 0.8.5; all that is used is older). It is a vector.Store.
//
// A search compares with all vectors, so it finds exactly the nearest. Its time grows with their number. A document is
// replaced in one transaction, and so is the switch to another model: other processes see all of it or nothing.
package pgvector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/vector"
)

// maxDimensions is what the extension's type takes (VECTOR_MAX_DIM in its vector.h).
const maxDimensions = 16000

// A Store keeps the collections of one place. It is safe for concurrent use, also by several processes.
type Store struct {
	db    *db.DB
	place string
	ready atomic.Bool // the database has the extension
}

var _ vector.Store = (*Store)(nil)

// New returns the Store of a place: the data directory whose index numbers the points. Those of other places in the same
// database are others. d is PostgreSQL, and stays the caller's. Nothing is asked of the server yet.
func New(d *db.DB, place string) *Store { return &Store{db: d, place: place} }

// Close has nothing to do: the database is the caller's, and every write was waited for.
func (s *Store) Close() error { return nil }

// check makes sure, until it is so, that the database has the extension.
func (s *Store) check(ctx context.Context) error {
	if s.ready.Load() {
		return nil
	}
	if err := enable(ctx, s.db); err != nil {
		return fmt.Errorf("keep vectors in PostgreSQL: %w", err)
	}
	s.ready.Store(true)
	return nil
}

// change runs f in a transaction that has the collections of name to itself among those who write.
func (s *Store) change(ctx context.Context, name string, f func(tx *sql.Tx) error) error {
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := s.db.LockName(ctx, tx, "pgvector "+s.place+" "+name); err != nil {
			return err
		}
		return f(tx)
	})
}

// Serving implements vector.Store.
func (s *Store) Serving(ctx context.Context, name string) (vector.Collection, error) {
	if err := vector.CheckName(name); err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	id, stamp, err := serving(ctx, s.db, s.place, name)
	if err != nil {
		return nil, fmt.Errorf("read which of %s serve: %w", name, err)
	}
	if id == 0 {
		return nil, vector.ErrNone
	}
	return &Collection{store: s, name: name, id: id, stamp: stamp}, nil
}

// Build implements vector.Store.
func (s *Store) Build(ctx context.Context, name string, stamp vector.Stamp) (vector.Collection, error) {
	if err := errors.Join(vector.CheckName(name), stamp.Validate()); err != nil {
		return nil, fmt.Errorf("build vectors: %w", err)
	}
	if stamp.Dimensions > maxDimensions {
		return nil, fmt.Errorf("build vectors: %s: pgvector takes %d dimensions at most; set library.dimensions, or library.store: embedded", stamp, maxDimensions)
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	c := &Collection{store: s, name: name, stamp: stamp}
	err := s.change(ctx, name, func(tx *sql.Tx) (err error) {
		if c.id, err = find(ctx, tx, s.place, name, stamp); err == nil && c.id == 0 {
			c.id, err = create(ctx, tx, s.place, name, stamp)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("build vectors of %s: %w", name, err)
	}
	return c, nil
}

// Switch implements vector.Store.
func (s *Store) Switch(ctx context.Context, name string, stamp vector.Stamp) error {
	if err := vector.CheckName(name); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	err := s.change(ctx, name, func(tx *sql.Tx) error {
		id, err := find(ctx, tx, s.place, name, stamp)
		if err != nil {
			return err
		}
		if id == 0 {
			return vector.ErrNone
		}
		return serve(ctx, tx, s.place, name, id)
	})
	if err != nil {
		return fmt.Errorf("switch %s to %s: %w", name, stamp, err)
	}
	return nil
}

// A Collection is a vector.Collection in the database.
type Collection struct {
	store *Store
	name  string
	id    int64
	stamp vector.Stamp
}

var _ vector.Collection = (*Collection)(nil)

// Stamp implements vector.Collection.
func (c *Collection) Stamp() vector.Stamp { return c.stamp }

// Save implements vector.Collection: a commit is on the server's disk.
func (c *Collection) Save(context.Context) error { return nil }

// Replace implements vector.Collection, in one transaction. Of entries with one name the last counts, and so it is with points
// of one id.
func (c *Collection) Replace(ctx context.Context, entries ...vector.Entry) error {
	if err := c.stamp.Check(entries); err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	err := c.store.change(ctx, c.name, func(tx *sql.Tx) error {
		if err := there(ctx, tx, c.id); err != nil {
			return err
		}
		return replace(ctx, tx, c.id, last(entries))
	})
	if err != nil {
		return fmt.Errorf("store vectors of %q and %d more: %w", entries[0].Name, len(entries)-1, err)
	}
	return nil
}

// last returns the last entry of each name, with the last point of each id.
func last(entries []vector.Entry) []vector.Entry {
	names, ids := map[string]int{}, map[uint64][2]int{}
	for i, e := range entries {
		names[e.Name] = i
	}
	for i, e := range entries {
		for j, p := range e.Points {
			if names[e.Name] == i {
				ids[p.ID] = [2]int{i, j}
			}
		}
	}
	var out []vector.Entry
	for i, e := range entries {
		if names[e.Name] != i {
			continue
		}
		points := e.Points
		e.Points = nil
		for j, p := range points {
			if ids[p.ID] == [2]int{i, j} {
				e.Points = append(e.Points, p)
			}
		}
		out = append(out, e)
	}
	return out
}

// Delete implements vector.Collection.
func (c *Collection) Delete(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	err := c.store.change(ctx, c.name, func(tx *sql.Tx) error {
		if err := there(ctx, tx, c.id); err != nil {
			return err
		}
		return remove(ctx, tx, c.id, names)
	})
	if err != nil {
		return fmt.Errorf("delete vectors of %q and %d more: %w", names[0], len(names)-1, err)
	}
	return nil
}

// Query implements vector.Collection.
func (c *Collection) Query(ctx context.Context, q vector.Query) ([]vector.Hit, error) {
	if err := c.stamp.CheckQuery(q); err != nil {
		return nil, err
	}
	hits, err := nearest(ctx, c.store.db, c.id, q)
	if err != nil {
		return nil, fmt.Errorf("search vectors of %s: %w", c.name, errors.Join(err, ctx.Err()))
	}
	return hits, nil
}

// Documents implements vector.Collection.
func (c *Collection) Documents(ctx context.Context) ([]vector.Document, error) {
	all, err := documents(ctx, c.store.db, c.id)
	if err == nil {
		err = there(ctx, c.store.db.Read(), c.id) // afterwards: what was read was of a collection that is there
	}
	if err != nil {
		return nil, fmt.Errorf("list documents of %s: %w", c.name, err)
	}
	return all, nil
}

// text writes the direction of v as the extension reads it: [1,0.5].
func text(v []float32) string {
	var b strings.Builder
	b.Grow(12 * len(v))
	for i, x := range vector.Unit(v) {
		b.WriteByte("[,"[min(i, 1)])
		b.Write(strconv.AppendFloat(nil, float64(x), 'g', -1, 32))
	}
	b.WriteByte(']')
	return b.String()
}

// signed is how PostgreSQL, which has no unsigned numbers, keeps an id: moved by 1<<63, so that the order stays. unsigned is its
// inverse.
func signed(id uint64) int64   { return int64(id ^ 1<<63) }  //nolint:gosec // the bits are what counts
func unsigned(id int64) uint64 { return uint64(id) ^ 1<<63 } //nolint:gosec // the bits are what counts

// plain has s be what PostgreSQL takes for text, which holds neither NUL nor bytes that are not UTF-8.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
