// Package qdrant keeps vectors in a Qdrant server: a vector.Store over its REST interface, with a second lane of words (sparse
// vectors, weighted by the server's own inverse document frequency) and both fused by the server.
//
// A collection of the Store is an alias (PREFIXvault) to a collection that is named after its stamp (PREFIXvault_0123456789abcdef).
// Its points are the caller's points, each with its document's name, folders, tags, type and time for filters, and one marker
// for each document, without a vector, that tells what Documents tells. The marker is written last.
package qdrant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
	"home.arpa/lab/llm-runner/internal/vector"
)

// DefaultURL is where Qdrant listens by itself.
const DefaultURL = "http://127.0.0.1:6333"

// Config says where the server is.
type Config struct {
	URL     string        // "" means DefaultURL
	Key     string        // "" none; a server that others can reach needs one
	Prefix  string        // of all names there, so that several programs can share a server; "" means "runner_"
	Timeout time.Duration // the longest silence; 0 means 30 s
}

// Validate returns all faults of c.
func (c Config) Validate() error {
	var errs []error
	if err := upstream.Check(c.url(), DefaultURL, c.Timeout); err != nil {
		errs = append(errs, err)
	}
	for _, r := range c.Prefix {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			errs = append(errs, fmt.Errorf("prefix: %q; write small letters, digits, _ and - only", c.Prefix))
			break
		}
	}
	return errors.Join(errs...)
}

func (c Config) url() string { return cmp.Or(c.URL, DefaultURL) }

// A Store keeps collections on one server. It is safe for concurrent use, also by several processes.
type Store struct {
	client *client
	prefix string

	mu      sync.Mutex
	checked bool // that the server is new enough
}

var _ vector.Store = (*Store)(nil)

// New returns the Store of a valid Config. Nothing is asked of the server yet.
func New(c Config) *Store {
	h := http.Header{}
	if c.Key != "" {
		h.Set("Api-Key", c.Key)
	}
	if c.Prefix == "" {
		c.Prefix = "runner_"
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return &Store{client: &client{upstream.New("qdrant", c.url(), h, c.Timeout)}, prefix: c.Prefix}
}

// Close closes connections. What was written is on the server's disk already.
func (s *Store) Close() error {
	s.client.up.CloseIdle()
	return nil
}

// Version returns the server's version: the cheapest sign of life.
func (s *Store) Version(ctx context.Context) (string, error) {
	// This one answer has no result around it.
	resp, err := s.client.up.Send(ctx, http.MethodGet, "/", nil, nil)
	if err != nil {
		return "", s.client.explained(ctx, err)
	}
	defer resp.Body.Close()
	body := upstream.ErrorBody(resp)
	if resp.StatusCode >= 300 {
		return "", s.client.explained(ctx, refusal(resp.StatusCode, resp.Header, body))
	}
	return version(body)
}

// check makes sure, once, that the server is new enough.
func (s *Store) check(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checked {
		return nil
	}
	v, err := s.Version(ctx)
	if err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err == nil && (major < 1 || major == 1 && minor < 10) {
		return fmt.Errorf("use qdrant %s: it is older than 1.10, which has the query interface; update it", v)
	}
	s.checked = true
	return nil
}

func (s *Store) alias(name string) string { return s.prefix + name }

func (s *Store) physical(name string, stamp vector.Stamp) string {
	return s.prefix + name + "_" + stamp.Hash()
}

// Serving implements vector.Store.
func (s *Store) Serving(ctx context.Context, name string) (vector.Collection, error) {
	c, err := s.serving(ctx, name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Store) serving(ctx context.Context, name string) (*Collection, error) {
	if err := errors.Join(vector.CheckName(name), s.check(ctx)); err != nil {
		return nil, err
	}
	to, err := s.target(ctx, name)
	if err != nil {
		return nil, err
	}
	if to == "" {
		return nil, vector.ErrNone
	}
	c := &Collection{client: s.client, name: to}
	if c.stamp, err = c.readStamp(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", to, err)
	}
	return c, nil
}

// target returns the collection that the alias of name leads to, "" where there is none.
func (s *Store) target(ctx context.Context, name string) (string, error) {
	var out struct {
		Aliases []struct {
			Alias      string `json:"alias_name"`
			Collection string `json:"collection_name"`
		} `json:"aliases"`
	}
	if err := s.client.call(ctx, http.MethodGet, "/aliases", nil, &out); err != nil {
		return "", fmt.Errorf("read which of %s serve: %w", name, err)
	}
	for _, a := range out.Aliases {
		if a.Alias == s.alias(name) {
			return a.Collection, nil
		}
	}
	return "", nil
}

// Build implements vector.Store. A creation that was cut short is finished.
func (s *Store) Build(ctx context.Context, name string, stamp vector.Stamp) (vector.Collection, error) {
	if err := errors.Join(vector.CheckName(name), stamp.Validate()); err != nil {
		return nil, fmt.Errorf("build vectors: %w", err)
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	c := &Collection{client: s.client, name: s.physical(name, stamp), stamp: stamp}
	have, err := c.readStamp(ctx)
	switch {
	case err == nil && have != stamp:
		return nil, &vector.StampError{Have: have, Want: stamp}
	case err == nil:
		return c, nil
	case !is(err, llm.NotFound):
		return nil, fmt.Errorf("open %s: %w", c.name, err)
	}
	if err := c.create(ctx); err != nil {
		return nil, fmt.Errorf("create %s: %w", c.name, err)
	}
	return c, nil
}

// Switch implements vector.Store. The server changes aliases at one stroke.
func (s *Store) Switch(ctx context.Context, name string, stamp vector.Stamp) error {
	if err := errors.Join(vector.CheckName(name), s.check(ctx)); err != nil {
		return err
	}
	next := &Collection{client: s.client, name: s.physical(name, stamp)}
	if _, err := next.readStamp(ctx); is(err, llm.NotFound) {
		return fmt.Errorf("switch %s to %s: %w", name, stamp, vector.ErrNone)
	} else if err != nil {
		return fmt.Errorf("switch %s to %s: %w", name, stamp, err)
	}
	before, err := s.target(ctx, name)
	if err != nil {
		return err
	}
	if before != next.name {
		actions := []object{{"create_alias": object{"alias_name": s.alias(name), "collection_name": next.name}}}
		if before != "" {
			actions = append([]object{{"delete_alias": object{"alias_name": s.alias(name)}}}, actions...)
		}
		if err := s.client.call(ctx, http.MethodPost, "/collections/aliases", object{"actions": actions}, nil); err != nil {
			return fmt.Errorf("switch %s to %s: %w", name, stamp, err)
		}
	}
	return s.removeOthers(ctx, name, next.name)
}

// removeOthers removes all collections of name but one.
func (s *Store) removeOthers(ctx context.Context, name, keep string) error {
	var out struct {
		Collections []struct {
			Name string `json:"name"`
		} `json:"collections"`
	}
	if err := s.client.call(ctx, http.MethodGet, "/collections", nil, &out); err != nil {
		return fmt.Errorf("remove old collections of %s: %w", name, err)
	}
	for _, c := range out.Collections {
		hash, ok := strings.CutPrefix(c.Name, s.alias(name)+"_")
		if !ok || len(hash) != 16 || c.Name == keep {
			continue
		}
		if err := s.client.call(ctx, http.MethodDelete, path("collections", c.Name), nil, nil); err != nil {
			return fmt.Errorf("remove %s: %w", c.Name, err)
		}
	}
	return nil
}

// RemoveAll removes every collection whose name begins with the Store's prefix: what was made to be measured.
func (s *Store) RemoveAll(ctx context.Context) error {
	var out struct {
		Collections []struct {
			Name string `json:"name"`
		} `json:"collections"`
	}
	if err := s.client.call(ctx, http.MethodGet, "/collections", nil, &out); err != nil {
		return fmt.Errorf("remove collections: %w", err)
	}
	for _, c := range out.Collections {
		if !strings.HasPrefix(c.Name, s.prefix) {
			continue
		}
		if err := s.client.call(ctx, http.MethodDelete, path("collections", c.Name), nil, nil); err != nil {
			return fmt.Errorf("remove %s: %w", c.Name, err)
		}
	}
	return nil
}

// A Snapshot is a file on the server, below its storage's snapshots folder: back that folder up.
type Snapshot struct {
	Collection string `json:"collection"`
	Name       string `json:"name"`
	Bytes      int64  `json:"size"`
}

// Snapshot has the server write the serving collection of name into a file, and removes all of its older ones but keep-1.
func (s *Store) Snapshot(ctx context.Context, name string, keep int) (Snapshot, error) {
	c, err := s.serving(ctx, name)
	if err != nil {
		return Snapshot{}, err
	}
	at := path("collections", c.name, "snapshots")
	out := Snapshot{Collection: c.name}
	if err := s.client.call(ctx, http.MethodPost, at, object{}, &out); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", c.name, err)
	}
	var all []struct {
		Name    string `json:"name"`
		Created string `json:"creation_time"`
	}
	if err := s.client.call(ctx, http.MethodGet, at, nil, &all); err != nil {
		return out, fmt.Errorf("list snapshots of %s: %w", c.name, err)
	}
	older := map[string]string{}
	for _, x := range all {
		if x.Name != out.Name {
			older[x.Created+x.Name] = x.Name
		}
	}
	for i, key := range newestFirst(older) {
		if i < keep-1 {
			continue
		}
		if err := s.client.call(ctx, http.MethodDelete, at+path(older[key]), nil, nil); err != nil {
			return out, fmt.Errorf("remove snapshot %s: %w", older[key], err)
		}
	}
	return out, nil
}
