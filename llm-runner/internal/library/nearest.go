package library

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/vector"
)

// A near passage was found by its meaning. Its score is the cosine.
type near struct {
	id    int64
	score float64
	trust float64 // that the collection deserves
}

// ErrNoModel says that there is nobody who makes vectors. It is looked for again.
var ErrNoModel = errors.New("no model makes vectors")

// errNoMeaning says that there are no vectors to ask.
var errNoMeaning = errors.New("nothing has vectors yet: name a model that makes them in library.embed, or give it time")

// nearest returns the n passages of the collections that are nearest to text, best first, of those that keep lets through, and how many it
// met that keep does not. k is the filter; nil there is none.
func (m *mind) nearest(ctx context.Context, text string, k *keeping, keep func(passage int64) bool, names []string, n int) (found []near, cut int, err error) {
	if m == nil {
		return nil, 0, errNoMeaning
	}
	all, err := m.servingAll(ctx, k.collection())
	if err != nil {
		return nil, 0, err
	}
	for _, s := range all {
		v, err := m.asked.vector(ctx, s.embedder, text)
		if err != nil {
			return nil, 0, err
		}
		hits, left, err := s.query(ctx, vector.Question{Query: vector.Query{Vector: v}}, k, keep, names, n)
		if err != nil {
			return nil, 0, err
		}
		cut += left
		for _, h := range hits {
			found = append(found, near{int64(h.ID), float64(h.Score), s.trust})
		}
	}
	return nearestFirst(found, n), cut, nil
}

func nearestFirst(found []near, n int) []near {
	slices.SortFunc(found, func(a, b near) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	return found[:min(n, len(found))]
}

// errNoWords says that a store finds by vectors only.
var errNoWords = errors.New("the store of vectors has no lane of words: library.store: qdrant has one")

// worded is nearest by the store's own lane of words. Scores of several collections are put together as they are, though a word that is rare
// in one may be frequent in another.
func (m *mind) worded(ctx context.Context, stems []string, k *keeping, keep func(passage int64) bool, names []string, n int) (found []near, cut int, err error) {
	if m == nil {
		return nil, 0, errNoMeaning
	}
	if m.Asked == nil {
		return nil, 0, errNoWords
	}
	all, err := m.servingAll(ctx, k.collection())
	if err != nil {
		return nil, 0, err
	}
	for _, s := range all {
		if _, ok := s.Collection.(vector.Worded); !ok {
			return nil, 0, errNoWords
		}
		hits, left, err := s.query(ctx, vector.Question{Words: m.Asked(stems)}, k, keep, names, n)
		if err != nil {
			return nil, 0, err
		}
		cut += left
		for _, h := range hits {
			found = append(found, near{int64(h.ID), float64(h.Score), s.trust})
		}
	}
	return nearestFirst(found, n), cut, nil
}

// Where a store cannot be asked for each passage, so many times as many are asked for, and more and more until enough of them count, up to the
// last. A store that knows the whole filter gives too many only of what was changed just now.
const (
	overfetchWhole = 2
	overfetch      = 10
	overfetchMax   = 160
)

// byFilter is why passages are cut that a store gave though the filter leaves them out.
const byFilter = "near in meaning, but left out by the filter"

// query asks one collection. names are the documents that count, where there are few; nil all do, as far as keep lets them through.
func (s serving) query(ctx context.Context, q vector.Question, k *keeping, keep func(int64) bool, names []string, n int) (hits []vector.Hit, cut int, err error) {
	ask := func() ([]vector.Hit, error) {
		if c, ok := s.Collection.(vector.Worded); ok {
			return c.Search(ctx, q)
		}
		return s.Query(ctx, q.Query)
	}
	q.Limit, q.Filter = n, vector.Filter{Names: names}
	if keep == nil || names != nil {
		hits, err = ask()
		return hits, 0, err
	}
	if x, ok := s.Collection.(*vector.Index); ok {
		hits, err = x.QueryIDs(ctx, q.Query, func(id uint64) bool { return keep(int64(id)) })
		return hits, 0, err
	}
	var whole bool
	more := overfetch
	if q.Filter, whole = k.stored(); whole {
		more = overfetchWhole
	}
	for ; ; more *= 4 {
		q.Limit = more * n
		if hits, err = ask(); err != nil {
			return nil, 0, err
		}
		got := len(hits)
		hits = slices.DeleteFunc(hits, func(h vector.Hit) bool { return !keep(int64(h.ID)) })
		if cut = got - len(hits); len(hits) >= n || got < q.Limit || more >= overfetchMax {
			return hits[:min(n, len(hits))], cut, nil
		}
	}
}

// servingAll returns the collections that answer; "" all of them.
func (m *mind) servingAll(ctx context.Context, only string) ([]serving, error) {
	m.mu.Lock()
	known := maps.Clone(m.serving)
	m.mu.Unlock()
	names := []string{only}
	if only == "" {
		names = slices.Sorted(maps.Keys(known))
		if len(names) == 0 {
			names = []string{Notes, Web, Memory}
		}
	}
	var all []serving
	for _, name := range names {
		s, ok := known[name]
		if !ok {
			c, err := m.Store.Serving(ctx, name)
			if errors.Is(err, vector.ErrNone) {
				continue
			}
			if err != nil {
				return nil, err
			}
			e, err := m.Embedder(ctx, c.Stamp())
			if err != nil {
				return nil, err
			}
			if s, err = m.serve(ctx, name, c, e); err != nil {
				return nil, err
			}
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, errNoMeaning
	}
	return all, nil
}

// questions are the vectors of the last questions: who types asks the same again and again.
type questions struct {
	mu    sync.Mutex
	all   map[string]*asking
	order []string
	left  *asking // the one under way that nobody waits for; nil: none is
}

type asking struct {
	key    string
	done   chan struct{}
	cancel context.CancelFunc
	waits  int // who waits for it
	vector []float32
	err    error
}

// Bounds of what is remembered, and for how long a question goes on that nobody waits for any more: then the next one who asks the same
// has it. Of those there is one, the last: who types leaves one behind with each letter.
const (
	maxQuestions = 128
	maxQuestion  = 2000 // bytes
	longQuestion = 30 * time.Second
)

// vector returns the vector of a question. Where ctx ends first, the question goes on for whoever asks it again.
func (q *questions) vector(ctx context.Context, e *embed.Embedder, text string) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(text) > maxQuestion {
		text = strings.ToValidUTF8(text[:maxQuestion], "")
	}
	a := q.join(ctx, e, text)
	defer q.leave(a)
	select {
	case <-a.done:
		return a.vector, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join waits for a question together with others who ask it, or begins it.
func (q *questions) join(ctx context.Context, e *embed.Embedder, text string) *asking {
	key := fmt.Sprintf("%p %s", e, text)
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.all[key]
	if a != nil {
		a.waits++
		if q.left == a {
			q.left = nil
		}
		return a
	}
	a = &asking{key: key, done: make(chan struct{}), waits: 1}
	ctx, a.cancel = context.WithTimeout(context.WithoutCancel(ctx), longQuestion)
	if q.all == nil {
		q.all = map[string]*asking{}
	}
	q.all[key] = a
	if q.order = append(q.order, key); len(q.order) > maxQuestions {
		delete(q.all, q.order[0])
		q.order = q.order[1:]
	}
	go func() {
		defer a.cancel()
		v, err := e.Query(ctx, text)
		q.mu.Lock()
		defer q.mu.Unlock()
		a.vector, a.err = v.Values, err
		if err != nil { // the next one tries again
			q.drop(a)
		}
		if q.left == a {
			q.left = nil
		}
		close(a.done)
	}()
	return a
}

// drop forgets a question. The caller holds mu.
func (q *questions) drop(a *asking) {
	if q.all[a.key] == a {
		delete(q.all, a.key)
		q.order = slices.DeleteFunc(q.order, func(key string) bool { return key == a.key })
	}
}

// leave waits no longer. A question that nobody waits for ends the one that was left before it.
func (q *questions) leave(a *asking) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.waits--
	select {
	case <-a.done:
		return
	default:
	}
	if a.waits > 0 {
		return
	}
	if before := q.left; before != nil {
		q.drop(before)
		before.cancel()
	}
	q.left = a
}
