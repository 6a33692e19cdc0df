package qdrant

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/vector"
)

// object is a JSON object.
type object = map[string]any

// Names of the two vectors of a point.
const (
	dense  = "text"
	sparse = "words"
)

// Names in a point's payload.
const (
	keyKind     = "kind" // of markers: "document" or "stamp"; points have none
	keyName     = "name"
	keyPut      = "put" // which Replace wrote it
	keyFolders  = "folders"
	keyTags     = "tags"
	keyType     = "type"
	keyModified = "modified" // unix milliseconds
	keyVersion  = "version"
	keyPoints   = "points"
)

// indexed are the keys that filters look at, with the type of their index.
var indexed = map[string]string{
	keyKind: "keyword", keyName: "keyword", keyPut: "keyword", keyFolders: "keyword", keyTags: "keyword", keyType: "keyword", keyModified: "integer",
}

// A Collection is a vector.Worded on the server.
type Collection struct {
	client *client
	name   string
	stamp  vector.Stamp
}

var _ vector.Worded = (*Collection)(nil)

// Stamp implements vector.Collection.
func (c *Collection) Stamp() vector.Stamp { return c.stamp }

// call is client.call below the collection's path. A collection that is not there any more was switched away from.
func (c *Collection) call(ctx context.Context, method, below string, in, out any) error {
	err := c.client.call(ctx, method, path("collections", c.name)+below, in, out)
	if is(err, llm.NotFound) {
		return errors.Join(vector.ErrClosed, err)
	}
	return err
}

// create makes the collection, its indexes, and last the stamp by which Build knows that all is there.
func (c *Collection) create(ctx context.Context) error {
	err := c.call(ctx, http.MethodPut, "", object{
		"vectors":        object{dense: object{"size": c.stamp.Dimensions, "distance": "Cosine", "on_disk": true}},
		"sparse_vectors": object{sparse: object{"modifier": "idf"}},
		// The vectors lie on the disk; what searches go by is a byte for each dimension, in memory, and then the vectors.
		"quantization_config": object{"scalar": object{"type": "int8", "always_ram": true}},
	}, nil)
	var e *llm.Error
	if err != nil && (!errors.As(err, &e) || e.Status != http.StatusConflict && !strings.Contains(e.Message, "already exists")) {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(indexed)) {
		if err := c.call(ctx, http.MethodPut, "/index?wait=true", object{"field_name": key, "field_schema": indexed[key]}, nil); err != nil {
			return fmt.Errorf("index %s: %w", key, err)
		}
	}
	return c.upsert(ctx, []point{{ID: stampID, Vector: object{}, Payload: object{
		keyKind: "stamp", "model": c.stamp.Model, "dimensions": c.stamp.Dimensions, "prefix": c.stamp.Prefix,
	}}})
}

// stampID is the id of the point that holds the stamp; the collection's own metadata came later than 1.10.
const stampID = "00000000-0000-4000-8000-000000000000"

// readStamp reads the stamp; llm.NotFound where there is no collection, or only half of one.
func (c *Collection) readStamp(ctx context.Context) (s vector.Stamp, err error) {
	var out struct {
		Payload vector.Stamp `json:"payload"`
	}
	if err := c.client.call(ctx, http.MethodGet, path("collections", c.name, "points", stampID), nil, &out); err != nil {
		return s, err
	}
	return out.Payload, nil
}

// A point is one of Qdrant's. ID is a number, or a UUID.
type point struct {
	ID      any    `json:"id"`
	Vector  object `json:"vector"`
	Payload object `json:"payload"`
}

// Requests have at most so many points: 768 floats are about 9 kB of JSON, and the server takes 32 MB at once.
const (
	maxPoints = 256
	maxFloats = 1 << 19
	maxNames  = 256
)

func (c *Collection) upsert(ctx context.Context, points []point) error {
	size := min(maxPoints, max(1, maxFloats/c.stamp.Dimensions))
	for part := range slices.Chunk(points, size) {
		if err := c.call(ctx, http.MethodPut, "/points?wait=true", object{"points": part}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Replace implements vector.Collection: the points first, then the old ones go, then the markers come. Who is stopped in
// between leaves documents without a marker, or with the old one.
func (c *Collection) Replace(ctx context.Context, entries ...vector.Entry) error {
	if err := c.stamp.Check(entries); err != nil {
		return err
	}
	for _, part := range groups(entries) {
		if err := c.replace(ctx, part); err != nil {
			return fmt.Errorf("store vectors of %q and %d more: %w", part[0].Name, len(part)-1, err)
		}
	}
	return nil
}

// groups cuts entries into parts that go over the wire together. A name is in a part once.
func groups(entries []vector.Entry) (parts [][]vector.Entry) {
	points, names := 0, map[string]bool{}
	for _, e := range entries {
		if len(names) == 0 || names[e.Name] || len(names) == maxNames || points+len(e.Points) > 4*maxPoints {
			parts, points, names = append(parts, nil), 0, map[string]bool{}
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], e)
		points, names[e.Name] = points+len(e.Points), true
	}
	return parts
}

func (c *Collection) replace(ctx context.Context, entries []vector.Entry) error {
	put := token()
	var points, markers []point
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
		for _, p := range e.Points {
			points = append(points, newPoint(e.Document, p, put))
		}
		markers = append(markers, marker(e, put))
	}
	if err := c.upsert(ctx, points); err != nil {
		return err
	}
	old := filter{Must: []object{anyOf(keyName, names)}, MustNot: []object{is1(keyPut, put)}}
	if err := c.call(ctx, http.MethodPost, "/points/delete?wait=true", object{"filter": old}, nil); err != nil {
		return err
	}
	return c.upsert(ctx, markers)
}

// token returns 16 letters that nobody had before.
func token() string {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}

func newPoint(d vector.Document, p vector.Point, put string) point {
	v := object{dense: p.Vector}
	if len(p.Words.Terms) > 0 {
		v[sparse] = sparseVector(p.Words)
	}
	return point{ID: p.ID, Vector: v, Payload: payload(d, put)}
}

func sparseVector(w vector.Words) object { return object{"indices": w.Terms, "values": w.Weights} }

// payload is what filters look at.
func payload(d vector.Document, put string) object {
	p := object{keyName: d.Name, keyPut: put, keyType: d.Type}
	if len(d.Tags) > 0 {
		p[keyTags] = d.Tags
	}
	var folders []string
	for i, r := range d.Name {
		if r == '/' {
			folders = append(folders, d.Name[:i])
		}
	}
	if len(folders) > 0 {
		p[keyFolders] = folders
	}
	if !d.Modified.IsZero() {
		p[keyModified] = d.Modified.UnixMilli()
	}
	return p
}

func marker(e vector.Entry, put string) point {
	p := payload(e.Document, put)
	p[keyKind], p[keyVersion], p[keyPoints] = "document", e.Version, len(e.Points)
	sum := sha256.Sum256([]byte(e.Name))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // a UUID of version 8: made by a rule of our own
	h := hex.EncodeToString(sum[:16])
	return point{ID: h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], Vector: object{}, Payload: p}
}

// Delete implements vector.Collection.
func (c *Collection) Delete(ctx context.Context, names ...string) error {
	for part := range slices.Chunk(names, maxNames) {
		f := filter{Must: []object{anyOf(keyName, part)}}
		if err := c.call(ctx, http.MethodPost, "/points/delete?wait=true", object{"filter": f}, nil); err != nil {
			return fmt.Errorf("delete vectors of %q and %d more: %w", part[0], len(part)-1, err)
		}
	}
	return nil
}

// Documents implements vector.Collection.
func (c *Collection) Documents(ctx context.Context) ([]vector.Document, error) {
	all := []vector.Document{}
	var offset any
	for {
		var page struct {
			Points []struct {
				Payload struct {
					Name     string   `json:"name"`
					Version  string   `json:"version"`
					Type     string   `json:"type"`
					Tags     []string `json:"tags"`
					Modified int64    `json:"modified"`
					Points   int      `json:"points"`
				} `json:"payload"`
			} `json:"points"`
			Next any `json:"next_page_offset"`
		}
		in := object{"filter": filter{Must: []object{is1(keyKind, "document")}}, "limit": 1000, "with_payload": true, "with_vector": false}
		if offset != nil {
			in["offset"] = offset
		}
		if err := c.call(ctx, http.MethodPost, "/points/scroll", in, &page); err != nil {
			return nil, fmt.Errorf("list documents of %s: %w", c.name, err)
		}
		for _, p := range page.Points {
			d := vector.Document{Name: p.Payload.Name, Version: p.Payload.Version, Type: p.Payload.Type, Tags: p.Payload.Tags, Points: p.Payload.Points}
			if ms := p.Payload.Modified; ms != 0 {
				d.Modified = time.UnixMilli(ms).UTC()
			}
			all = append(all, d)
		}
		if offset = page.Next; offset == nil {
			slices.SortFunc(all, func(a, b vector.Document) int { return cmp.Compare(a.Name, b.Name) })
			return all, nil
		}
	}
}

// Save implements vector.Collection: every write was waited for.
func (c *Collection) Save(context.Context) error { return nil }

// Query implements vector.Collection.
func (c *Collection) Query(ctx context.Context, q vector.Query) ([]vector.Hit, error) {
	if err := c.stamp.CheckQuery(q); err != nil {
		return nil, err
	}
	return c.search(ctx, meaning(q, q.Limit))
}

// meaning is the lane of vectors. What is found by the bytes in memory is decided by the vectors themselves.
func meaning(q vector.Query, limit int) object {
	return object{"query": q.Vector, "using": dense, "filter": newFilter(q.Filter), "limit": limit,
		"params": object{"quantization": object{"rescore": true, "oversampling": 2}}}
}

// laneDepth is how many of each lane are fused: three times as many as are wanted, and not fewer than 50.
func laneDepth(limit int) int { return max(3*limit, 50) }

// Search implements vector.Worded; the words are those of Say and Ask. Scores are those of the lane that was asked, or the sums of 1/(2+rank)
// of both.
func (c *Collection) Search(ctx context.Context, q vector.Question) ([]vector.Hit, error) {
	if len(q.Words.Terms) == 0 {
		return c.Query(ctx, q.Query)
	}
	if q.Limit < 1 || len(q.Words.Terms) != len(q.Words.Weights) {
		return nil, fmt.Errorf("search by words: a limit of %d, and %d weights of %d terms, find nothing", q.Limit, len(q.Words.Weights), len(q.Words.Terms))
	}
	words := object{"query": sparseVector(q.Words), "using": sparse, "filter": newFilter(q.Filter), "limit": laneDepth(q.Limit)}
	if q.Vector == nil {
		words["limit"] = q.Limit
		return c.search(ctx, words)
	}
	if err := c.stamp.CheckQuery(q.Query); err != nil {
		return nil, err
	}
	return c.search(ctx, object{"prefetch": []object{meaning(q.Query, laneDepth(q.Limit)), words}, "query": object{"fusion": "rrf"}, "limit": q.Limit})
}

func (c *Collection) search(ctx context.Context, in object) ([]vector.Hit, error) {
	in["with_payload"] = []string{keyName}
	var out struct {
		Points []struct {
			ID      json.Number       `json:"id"`
			Score   float32           `json:"score"`
			Payload map[string]string `json:"payload"`
		} `json:"points"`
	}
	if err := c.call(ctx, http.MethodPost, "/points/query", in, &out); err != nil {
		return nil, fmt.Errorf("search %s: %w", c.name, err)
	}
	hits := make([]vector.Hit, 0, len(out.Points))
	for _, p := range out.Points {
		var id uint64
		if _, err := fmt.Sscan(p.ID.String(), &id); err != nil {
			return nil, fmt.Errorf("search %s: point %s is not one of ours: %w", c.name, p.ID, err)
		}
		hits = append(hits, vector.Hit{ID: id, Document: p.Payload[keyName], Score: p.Score})
	}
	slices.SortStableFunc(hits, func(a, b vector.Hit) int { return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID)) })
	return hits, nil
}
