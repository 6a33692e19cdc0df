package fake

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
)

// A qdrantID is a point's id as JSON has it: a number, or a UUID in quotes.
type qdrantID string

var qdrantUUID = regexp.MustCompile(`^"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}"$`)

func (id *qdrantID) UnmarshalJSON(b []byte) error {
	if _, err := strconv.ParseUint(string(b), 10, 64); err != nil && !qdrantUUID.Match(b) {
		return fmt.Errorf("value %s is not a valid point ID, valid values are either an unsigned integer or a UUID", b)
	}
	*id = qdrantID(b)
	return nil
}

func (id qdrantID) MarshalJSON() ([]byte, error) { return []byte(id), nil }

// compareIDs orders ids as scrolling does: numbers before UUIDs, each ascending.
func compareIDs(a, b qdrantID) int {
	x, errX := strconv.ParseUint(string(a), 10, 64)
	y, errY := strconv.ParseUint(string(b), 10, 64)
	switch {
	case errX == nil && errY == nil:
		return cmp.Compare(x, y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return cmp.Compare(a, b)
}

// A qdrantPoint holds dense vectors of length one, sparse ones as they came.
type qdrantPoint struct {
	dense   map[string][]float32
	sparse  map[string]map[uint32]float32
	payload map[string]any
}

type qdrantSparse struct {
	Indices []uint32  `json:"indices"`
	Values  []float32 `json:"values"`
}

func (c *qdrantCollection) upsert(body []byte) error {
	var in struct {
		Points []struct {
			ID      qdrantID                   `json:"id"`
			Vector  map[string]json.RawMessage `json:"vector"`
			Payload map[string]any             `json:"payload"`
		} `json:"points"`
	}
	if err := strict(body, &in); err != nil {
		return err
	}
	if len(in.Points) == 0 {
		return qdrantFails(422, "Validation error in JSON body: [points: length is lower than 1]")
	}
	made := map[qdrantID]*qdrantPoint{}
	for _, p := range in.Points {
		if p.ID == "" {
			return errors.New("missing field `id`")
		}
		point := &qdrantPoint{map[string][]float32{}, map[string]map[uint32]float32{}, p.Payload}
		for name, raw := range p.Vector {
			if err := c.setVector(point, name, raw); err != nil {
				return err
			}
		}
		made[p.ID] = point
	}
	maps.Copy(c.points, made)
	return nil
}

func (c *qdrantCollection) setVector(p *qdrantPoint, name string, raw json.RawMessage) error {
	if want, ok := c.dense[name]; ok {
		var v []float32
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if len(v) != want.Size {
			return qdrantFails(400, "Wrong input: Vector dimension error: expected dim: %d, got %d", want.Size, len(v))
		}
		p.dense[name] = cosine(v)
		return nil
	}
	if _, ok := c.sparse[name]; !ok {
		return qdrantFails(400, "Wrong input: Not existing vector name error: %s", name)
	}
	var v qdrantSparse
	if err := strict(raw, &v); err != nil {
		return err
	}
	if len(v.Indices) != len(v.Values) {
		return qdrantFails(422, "Validation error in JSON body: [vector: must be the same length as indices]")
	}
	p.sparse[name] = map[uint32]float32{}
	for i, n := range v.Indices {
		if _, twice := p.sparse[name][n]; twice {
			return qdrantFails(422, "Validation error in JSON body: [vector: must be unique]")
		}
		p.sparse[name][n] = v.Values[i]
	}
	return nil
}

// cosine returns v with length one; a zero vector stays one.
func cosine(v []float32) []float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	out := slices.Clone(v)
	if sum > 0 {
		for i := range out {
			out[i] = float32(float64(out[i]) / math.Sqrt(sum))
		}
	}
	return out
}

func (c *qdrantCollection) remove(body []byte) error {
	var in struct {
		Points []qdrantID    `json:"points"`
		Filter *qdrantFilter `json:"filter"`
	}
	if err := strict(body, &in); err != nil {
		return err
	}
	if (in.Points == nil) == (in.Filter == nil) {
		return errors.New("data did not match any variant of untagged enum PointsSelector")
	}
	for _, id := range in.Points {
		delete(c.points, id)
	}
	if in.Filter != nil {
		maps.DeleteFunc(c.points, func(id qdrantID, p *qdrantPoint) bool { return in.Filter.match(id, p) })
	}
	return nil
}

func (c *qdrantCollection) one(id string) (any, error) {
	if _, err := strconv.ParseUint(id, 10, 64); err != nil {
		id = `"` + id + `"`
	}
	p := c.points[qdrantID(id)]
	if p == nil {
		return nil, qdrantFails(404, "Not found: Point with id %s does not exists!", id)
	}
	return map[string]any{"id": qdrantID(id), "payload": p.payload, "vector": map[string]any{}}, nil
}

func (c *qdrantCollection) sorted() []qdrantID {
	return slices.SortedFunc(maps.Keys(c.points), compareIDs)
}

func (c *qdrantCollection) total(body []byte) (any, error) {
	var in struct {
		Filter *qdrantFilter `json:"filter"`
		Exact  bool          `json:"exact"`
	}
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	n := 0
	for id, p := range c.points {
		if in.Filter.match(id, p) {
			n++
		}
	}
	return map[string]int{"count": n}, nil
}

func (c *qdrantCollection) scroll(body []byte) (any, error) {
	var in struct {
		Filter  *qdrantFilter   `json:"filter"`
		Offset  qdrantID        `json:"offset"`
		Limit   *int            `json:"limit"`
		Payload json.RawMessage `json:"with_payload"`
		Vector  bool            `json:"with_vector"`
	}
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	limit := 10
	if in.Limit != nil {
		if limit = *in.Limit; limit < 1 {
			return nil, qdrantFails(422, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
		}
	}
	if in.Payload == nil {
		in.Payload = json.RawMessage("true")
	}
	page, next := []any{}, any(nil)
	for _, id := range c.sorted() {
		if in.Offset != "" && compareIDs(id, in.Offset) < 0 || !in.Filter.match(id, c.points[id]) {
			continue
		}
		if len(page) == limit {
			next = id
			break
		}
		shown, err := c.points[id].shown(in.Payload)
		if err != nil {
			return nil, err
		}
		page = append(page, map[string]any{"id": id, "payload": shown})
	}
	return map[string]any{"points": page, "next_page_offset": next}, nil
}

// shown is the part of the payload that with_payload asks for: true, false, or a list of keys.
func (p *qdrantPoint) shown(with json.RawMessage) (any, error) {
	var all bool
	var keys []string
	switch {
	case len(with) == 0:
		return nil, nil
	case json.Unmarshal(with, &all) == nil:
		if all {
			return p.payload, nil
		}
		return nil, nil
	case json.Unmarshal(with, &keys) == nil:
		out := map[string]any{}
		for _, k := range keys {
			if v, ok := p.payload[k]; ok {
				out[k] = v
			}
		}
		return out, nil
	}
	return nil, errors.New("data did not match any variant of untagged enum WithPayloadInterface")
}

// A qdrantQuery is a query or a prefetch.
type qdrantQuery struct {
	Prefetch []qdrantQuery   `json:"prefetch"`
	Query    json.RawMessage `json:"query"`
	Using    string          `json:"using"`
	Filter   *qdrantFilter   `json:"filter"`
	Limit    *int            `json:"limit"`
	Params   json.RawMessage `json:"params"`
	Payload  json.RawMessage `json:"with_payload"`
}

type qdrantHit struct {
	id    qdrantID
	score float32
}

func (c *qdrantCollection) query(body []byte) (any, error) {
	var in qdrantQuery
	if err := strict(body, &in); err != nil {
		return nil, err
	}
	hits, err := c.search(in)
	if err != nil {
		return nil, err
	}
	points := []any{}
	for _, h := range hits {
		shown, err := c.points[h.id].shown(in.Payload)
		if err != nil {
			return nil, err
		}
		points = append(points, map[string]any{"id": h.id, "version": 0, "score": h.score, "payload": shown})
	}
	return map[string]any{"points": points}, nil
}

func (c *qdrantCollection) search(in qdrantQuery) (hits []qdrantHit, err error) {
	limit := 10
	if in.Limit != nil {
		if limit = *in.Limit; limit < 1 {
			return nil, qdrantFails(422, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
		}
	}
	var fusion struct {
		Fusion string `json:"fusion"`
	}
	var vector []float32
	var words qdrantSparse
	switch {
	case len(in.Prefetch) > 0 && strict(in.Query, &fusion) == nil && fusion.Fusion == "rrf":
		hits, err = c.fuse(in.Prefetch)
	case len(in.Prefetch) > 0:
		return nil, errors.New("only the fusion rrf of prefetches is imitated")
	case json.Unmarshal(in.Query, &vector) == nil:
		hits, err = c.nearest(vector, in)
	case strict(in.Query, &words) == nil:
		hits, err = c.wordy(words, in)
	default:
		return nil, errors.New("data did not match any variant of untagged enum QueryInterface")
	}
	if err != nil {
		return nil, err
	}
	// Among equals Qdrant promises no order; here the later points come first, so that nobody relies on one.
	slices.SortFunc(hits, func(a, b qdrantHit) int { return cmp.Or(cmp.Compare(b.score, a.score), compareIDs(b.id, a.id)) })
	return hits[:min(limit, len(hits))], nil
}

func (c *qdrantCollection) nearest(v []float32, in qdrantQuery) (hits []qdrantHit, err error) {
	want, ok := c.dense[in.Using]
	if !ok {
		return nil, qdrantFails(400, "Wrong input: Not existing vector name error: %s", in.Using)
	}
	if len(v) != want.Size {
		return nil, qdrantFails(400, "Wrong input: Vector dimension error: expected dim: %d, got %d", want.Size, len(v))
	}
	v = cosine(v)
	for id, p := range c.points {
		if w := p.dense[in.Using]; w != nil && in.Filter.match(id, p) {
			var sum float32
			for i := range v {
				sum += v[i] * w[i]
			}
			hits = append(hits, qdrantHit{id, sum})
		}
	}
	return hits, nil
}

// wordy scores by the products of shared terms; with the modifier idf each is weighted by ln((n-df+0.5)/(df+0.5)+1) over the
// points that have such a vector. Points that share no term are not found.
func (c *qdrantCollection) wordy(q qdrantSparse, in qdrantQuery) (hits []qdrantHit, err error) {
	modifier, ok := c.sparse[in.Using]
	if !ok {
		return nil, qdrantFails(400, "Wrong input: Not existing vector name error: %s", in.Using)
	}
	if len(q.Indices) != len(q.Values) {
		return nil, qdrantFails(422, "Validation error in JSON body: [query: must be the same length as indices]")
	}
	n, df := 0.0, map[uint32]float64{}
	for _, p := range c.points {
		if w := p.sparse[in.Using]; w != nil {
			n++
			for _, i := range q.Indices {
				if _, has := w[i]; has {
					df[i]++
				}
			}
		}
	}
	for id, p := range c.points {
		var sum float64
		shares := false
		for i, term := range q.Indices {
			x, has := p.sparse[in.Using][term]
			if !has {
				continue
			}
			weight := 1.0
			if modifier == "idf" {
				weight = math.Log((n-df[term]+0.5)/(df[term]+0.5) + 1)
			}
			shares, sum = true, sum+weight*float64(x)*float64(q.Values[i])
		}
		if shares && in.Filter.match(id, p) {
			hits = append(hits, qdrantHit{id, float32(sum)})
		}
	}
	return hits, nil
}

// fuse adds 1/(2+position) over the prefetches, positions from 0.
func (c *qdrantCollection) fuse(prefetches []qdrantQuery) (hits []qdrantHit, err error) {
	sums := map[qdrantID]float32{}
	for _, p := range prefetches {
		part, err := c.search(p)
		if err != nil {
			return nil, err
		}
		for i, h := range part {
			sums[h.id] += 1 / float32(2+i)
		}
	}
	for id, s := range sums {
		hits = append(hits, qdrantHit{id, s})
	}
	return hits, nil
}

// A qdrantFilter is a tree of conditions.
type qdrantFilter struct {
	Must    []qdrantCondition `json:"must"`
	Should  []qdrantCondition `json:"should"`
	MustNot []qdrantCondition `json:"must_not"`
}

type qdrantCondition struct {
	Key   string `json:"key"`
	Match *struct {
		Value any   `json:"value"`
		Any   []any `json:"any"`
	} `json:"match"`
	Range *struct {
		Lt  *float64 `json:"lt"`
		Lte *float64 `json:"lte"`
		Gt  *float64 `json:"gt"`
		Gte *float64 `json:"gte"`
	} `json:"range"`
	HasID        []qdrantID `json:"has_id"`
	qdrantFilter            // a filter is a condition too
}

func (f *qdrantFilter) match(id qdrantID, p *qdrantPoint) bool {
	if f == nil {
		return true
	}
	match := func(c qdrantCondition) bool { return c.match(id, p) }
	return !slices.ContainsFunc(f.Must, func(c qdrantCondition) bool { return !match(c) }) && !slices.ContainsFunc(f.MustNot, match) &&
		(len(f.Should) == 0 || slices.ContainsFunc(f.Should, match))
}

// match says whether the key's value, or one of its values where it is a list, fulfils the condition.
func (c qdrantCondition) match(id qdrantID, p *qdrantPoint) bool {
	if c.HasID != nil {
		return slices.Contains(c.HasID, id)
	}
	if len(c.Must)+len(c.Should)+len(c.MustNot) > 0 {
		return c.qdrantFilter.match(id, p)
	}
	values, ok := p.payload[c.Key].([]any)
	if v, has := p.payload[c.Key]; has && !ok {
		values = []any{v}
	}
	return slices.ContainsFunc(values, func(v any) bool {
		if c.Match != nil {
			return fmt.Sprint(v) == fmt.Sprint(c.Match.Value) && c.Match.Any == nil ||
				slices.ContainsFunc(c.Match.Any, func(w any) bool { return fmt.Sprint(v) == fmt.Sprint(w) })
		}
		n, err := strconv.ParseFloat(fmt.Sprint(v), 64)
		return err == nil && c.Range != nil && (c.Range.Lt == nil || n < *c.Range.Lt) && (c.Range.Lte == nil || n <= *c.Range.Lte) &&
			(c.Range.Gt == nil || n > *c.Range.Gt) && (c.Range.Gte == nil || n >= *c.Range.Gte)
	})
}
