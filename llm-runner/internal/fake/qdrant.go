package fake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// A Qdrant imitates the part of Qdrant's REST interface that stores of documents need, as https://api.qdrant.tech has it for
// 1.19: collections with named dense and sparse vectors, payload indexes, aliases, points written, deleted, scrolled, counted
// and queried with filters, prefetches and reciprocal rank fusion, snapshots. It keeps everything in memory and searches by
// trying all. What it does not know of a request it refuses, so that nobody relies on it. Of a script it takes key and faults.
type Qdrant struct {
	script script.Script
	server *Server // keeps the journal of requests

	mu          sync.Mutex
	count       int
	operations  int // of one collection or another, for operation_id
	collections map[string]*qdrantCollection
	aliases     map[string]string
}

// NewQdrant returns an empty server.
func NewQdrant(s script.Script) (*Qdrant, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &Qdrant{script: s, server: &Server{log: newJournal()}, collections: map[string]*qdrantCollection{}, aliases: map[string]string{}}, nil
}

// Requests returns the last requests, oldest first.
func (q *Qdrant) Requests() []Seen { return q.server.Requests() }

type qdrantCollection struct {
	dense     map[string]qdrantDense
	sparse    map[string]string // modifier by name
	config    json.RawMessage
	indexes   map[string]string
	points    map[qdrantID]*qdrantPoint
	snapshots []qdrantSnapshot
}

type qdrantDense struct {
	Size     int    `json:"size"`
	Distance string `json:"distance"`
}

type qdrantSnapshot struct {
	Name    string `json:"name"`
	Created string `json:"creation_time"`
	Size    int    `json:"size"`
}

// A qdrantError is an error response: the status and Qdrant's words.
type qdrantError struct {
	status  int
	message string
}

func (e *qdrantError) Error() string { return e.message }

func qdrantFails(status int, format string, a ...any) error {
	return &qdrantError{status, fmt.Sprintf(format, a...)}
}

// ServeHTTP answers as Qdrant would.
func (q *Qdrant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		q.server.inspect(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return // the caller went away
	}
	x := &exchange{server: q.server, w: w, r: r, entry: q.server.log.open(time.Now(), r, body)}
	defer x.close()
	if q.script.Key != "" && r.Header.Get("api-key") != q.script.Key && r.Header.Get("Authorization") != "Bearer "+q.script.Key {
		x.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		message := "Invalid API key or JWT"
		if r.Header.Get("api-key") == "" && r.Header.Get("Authorization") == "" {
			message = "Must provide an API key or an Authorization bearer token"
		}
		x.begin(http.StatusUnauthorized)
		_, _ = io.WriteString(w, message)
		x.whole = true
		return
	}
	if q.breaks(x) {
		return
	}
	result, err := q.answer(r.Method, r.URL, body)
	if v, ok := result.(qdrantVersion); ok {
		text, _ := json.Marshal(v) // two strings
		x.send("application/json", text)
		return
	}
	x.sendQdrant(result, err)
}

type qdrantVersion struct {
	Title   string `json:"title"`
	Version string `json:"version"`
}

func (x *exchange) sendQdrant(result any, err error) {
	status := http.StatusOK
	out := map[string]any{"result": result, "status": "ok", "time": 0.0001, "usage": nil}
	if err != nil {
		e, ok := err.(*qdrantError)
		if !ok {
			e = &qdrantError{http.StatusBadRequest, "Format error in JSON body: " + err.Error()}
		}
		status = e.status
		out = map[string]any{"result": nil, "status": map[string]string{"error": e.message}, "time": 0.0001}
	}
	text, _ := json.Marshal(out) // made of what was decoded from JSON
	x.w.Header().Set("Content-Type", "application/json")
	x.begin(status)
	_, werr := x.w.Write(text)
	x.whole = werr == nil
}

// breaks does the fault that the script has for this request, and says whether there was one.
func (q *Qdrant) breaks(x *exchange) bool {
	q.mu.Lock()
	q.count++
	fault, _ := q.script.FaultsOf(q.count, script.Rule{})
	q.mu.Unlock()
	if fault == nil {
		return false
	}
	switch {
	case fault.Kind == script.RateLimited:
		x.w.Header().Set("Retry-After", fmt.Sprint(max(1, int(fault.Wait/time.Second))))
		x.sendQdrant(nil, qdrantFails(429, "Rate limiting exceeded: Read rate limit exceeded, retry later"))
	case fault.Kind.Refuses():
		x.sendQdrant(nil, qdrantFails(fault.Kind.Status(), "Service internal error: %s", fault.Message))
	case fault.Kind == script.StallBeforeHeaders:
		x.stall()
	case fault.Kind == script.HTML200:
		x.send("text/html; charset=utf-8", []byte("<!doctype html><html><body>Back soon.</body></html>\n"))
	default:
		x.cut()
	}
	return true
}

// answer does what a request asks for and returns the result.
func (q *Qdrant) answer(method string, u *url.URL, body []byte) (any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var parts []string
	for p := range strings.SplitSeq(strings.Trim(u.EscapedPath(), "/"), "/") {
		s, err := url.PathUnescape(p)
		if err != nil {
			return nil, err
		}
		parts = append(parts, s)
	}
	what := method + " " + parts[0]
	switch {
	case what == "GET " && len(parts) == 1:
		return qdrantVersion{"qdrant - vector search engine", "1.19.0"}, nil
	case what == "GET collections" && len(parts) == 1:
		var list []map[string]string
		for _, name := range slices.Sorted(maps.Keys(q.collections)) {
			list = append(list, map[string]string{"name": name})
		}
		return map[string]any{"collections": list}, nil
	case what == "GET aliases" && len(parts) == 1:
		list := []map[string]string{}
		for _, a := range slices.Sorted(maps.Keys(q.aliases)) {
			list = append(list, map[string]string{"alias_name": a, "collection_name": q.aliases[a]})
		}
		return map[string]any{"aliases": list}, nil
	case what == "POST collections" && len(parts) == 2 && parts[1] == "aliases":
		return q.changeAliases(body)
	case parts[0] == "collections" && len(parts) >= 2:
		return q.collection(method, parts[1], strings.Join(parts[2:], "/"), body)
	}
	return nil, qdrantFails(http.StatusNotFound, "")
}

// strict decodes body and refuses what v does not know.
func strict(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func (q *Qdrant) changeAliases(body []byte) (any, error) {
	var in struct {
		Actions []struct {
			Create *struct {
				Alias      string `json:"alias_name"`
				Collection string `json:"collection_name"`
			} `json:"create_alias"`
			Delete *struct {
				Alias string `json:"alias_name"`
			} `json:"delete_alias"`
		} `json:"actions"`
	}
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	next := maps.Clone(q.aliases)
	for _, a := range in.Actions {
		switch {
		case a.Delete != nil:
			delete(next, a.Delete.Alias)
		case a.Create != nil:
			if q.collections[a.Create.Collection] == nil {
				return nil, qdrantFails(404, "Not found: Collection `%s` doesn't exist!", a.Create.Collection)
			}
			if q.collections[a.Create.Alias] != nil {
				return nil, qdrantFails(409, "Wrong input: Collection `%s` already exists!", a.Create.Alias)
			}
			next[a.Create.Alias] = a.Create.Collection
		}
	}
	q.aliases = next
	return true, nil
}

// collection does what is asked of one collection, which may be named by an alias.
func (q *Qdrant) collection(method, name, below string, body []byte) (any, error) {
	what := method + " " + below
	if what == "PUT " {
		return q.create(name, body)
	}
	if to, ok := q.aliases[name]; ok {
		name = to
	}
	c := q.collections[name]
	switch {
	case what == "GET exists":
		return map[string]bool{"exists": c != nil}, nil
	case what == "DELETE ":
		delete(q.collections, name)
		maps.DeleteFunc(q.aliases, func(_, to string) bool { return to == name })
		return c != nil, nil
	case c == nil:
		return nil, qdrantFails(404, "Not found: Collection `%s` doesn't exist!", name)
	case what == "GET ":
		return c.info(), nil
	case what == "PUT index":
		return q.index(c, body)
	case what == "GET snapshots":
		return append([]qdrantSnapshot{}, c.snapshots...), nil
	case what == "POST snapshots":
		q.operations++
		now := time.Now().UTC()
		s := qdrantSnapshot{fmt.Sprintf("%s-%d-%s.snapshot", name, q.operations, now.Format("2006-01-02-15-04-05")), now.Format("2006-01-02T15:04:05"), 1 + 100*len(c.points)}
		c.snapshots = append(c.snapshots, s)
		return s, nil
	case method == "DELETE" && strings.HasPrefix(below, "snapshots/"):
		n := len(c.snapshots)
		c.snapshots = slices.DeleteFunc(c.snapshots, func(s qdrantSnapshot) bool { return "snapshots/"+s.Name == below })
		if len(c.snapshots) == n {
			return nil, qdrantFails(404, "Not found: Snapshot %s not found", strings.TrimPrefix(below, "snapshots/"))
		}
		return true, nil
	case what == "PUT points":
		return q.done(c.upsert(body))
	case what == "POST points/delete":
		return q.done(c.remove(body))
	case what == "POST points/scroll":
		return c.scroll(body)
	case what == "POST points/count":
		return c.total(body)
	case what == "POST points/query":
		return c.query(body)
	case method == "GET" && strings.HasPrefix(below, "points/"):
		return c.one(strings.TrimPrefix(below, "points/"))
	}
	return nil, qdrantFails(http.StatusNotFound, "")
}

// done is the result of a write.
func (q *Qdrant) done(err error) (any, error) {
	if err != nil {
		return nil, err
	}
	q.operations++
	return map[string]any{"operation_id": q.operations, "status": "completed"}, nil
}

func (q *Qdrant) create(name string, body []byte) (any, error) {
	if q.collections[name] != nil {
		return nil, qdrantFails(409, "Wrong input: Collection `%s` already exists!", name)
	}
	if q.aliases[name] != "" {
		return nil, qdrantFails(400, "Wrong input: Can't create collection with name %s. Alias with the same name already exists", name)
	}
	var in struct {
		Vectors map[string]struct {
			qdrantDense
			OnDisk bool `json:"on_disk"`
		} `json:"vectors"`
		Sparse map[string]struct {
			Modifier string `json:"modifier"`
		} `json:"sparse_vectors"`
		Quantization json.RawMessage `json:"quantization_config"`
		Metadata     json.RawMessage `json:"metadata"`
	}
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	c := &qdrantCollection{dense: map[string]qdrantDense{}, sparse: map[string]string{}, config: body, indexes: map[string]string{}, points: map[qdrantID]*qdrantPoint{}}
	for name, v := range in.Vectors {
		if v.Size < 1 || v.Size > 65536 {
			return nil, qdrantFails(422, "Validation error in JSON body: [vectors.size: value %d invalid, must be from 1 to 65536]", v.Size)
		}
		if v.Distance != "Cosine" {
			return nil, fmt.Errorf("distance %q is not imitated", v.Distance)
		}
		c.dense[name] = v.qdrantDense
	}
	for name, v := range in.Sparse {
		c.sparse[name] = v.Modifier
	}
	q.collections[name] = c
	return true, nil
}

func (q *Qdrant) index(c *qdrantCollection, body []byte) (any, error) {
	var in struct {
		Field  string `json:"field_name"`
		Schema string `json:"field_schema"`
	}
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"}, in.Schema) {
		return nil, fmt.Errorf("data did not match any variant of untagged enum PayloadFieldSchema")
	}
	c.indexes[in.Field] = in.Schema
	return q.done(nil)
}

func (c *qdrantCollection) info() any {
	schema := map[string]any{}
	for field, kind := range c.indexes {
		schema[field] = map[string]any{"data_type": kind, "points": len(c.points)}
	}
	return map[string]any{
		"status": "green", "optimizer_status": "ok", "points_count": len(c.points), "indexed_vectors_count": 0, "segments_count": 1,
		"payload_schema": schema, "config": map[string]any{"params": c.config, "hnsw_config": map[string]any{"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
			"optimizer_config": map[string]any{"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0, "flush_interval_sec": 5}},
	}
}
