package library

import (
	"context"
	"slices"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/vector"
)

// How far vectors are trusted is measured on the notes themselves, with no questions and no judgments: the nearest passages of some by
// their vectors should be, in part, those that their words find. A good model agrees with the words on two fifths of them and is right about
// many of the others; one that knows nothing agrees by chance. Between distrust and trusted the weight of its lane grows evenly.
// On Cranfield all-MiniLM-L6-v2 agrees in 0.38, and fused with full weight ranks better than either lane (docs/bench.md); a random
// projection of the words (the tests' tiny-embed) agrees in 0.10 and would spoil what the words find.
const (
	gaugeSamples = 40
	gaugeDepth   = 50
	distrust     = 0.15
	trusted      = 0.30
	// In fewer passages nothing can be measured, and while vectors are made for the first time nothing is yet: then both lanes count, the
	// words more.
	gaugeLeast = 100
	unmeasured = 0.3
)

// A trust is what was measured.
type trust struct {
	weight float64 // 0 to 1
	notes  int     // in the collection at the time
}

// gauge measures how far an embedder can be trusted with a collection, and remembers it. It is measured again when the collection has grown
// to twice its size.
func (m *mind) gauge(ctx context.Context, name string, c vector.Collection, e *embed.Embedder, notes int) error {
	if name == Memory { // a sample of it would be kept in the cache
		return nil
	}
	model := c.Stamp().Model
	before, ok, err := readTrust(ctx, m.lib.db, name, model)
	if err != nil || ok && notes < 2*before.notes {
		return err
	}
	x := m.lib.words.Load()
	sample, err := sampled(ctx, m.lib.db, name, gaugeSamples)
	sample = slices.DeleteFunc(sample, func(n meantNote) bool { return m.Withheld != nil && m.Withheld(model, name, n.path) })
	if err != nil || x.passages < gaugeLeast || len(sample) < gaugeSamples/2 {
		return err
	}
	texts := make([]string, len(sample))
	for i, n := range sample {
		texts[i] = n.text(n.passages[0])
	}
	vectors, err := e.Documents(ctx, texts) // all of them are in the cache
	if err != nil {
		return err
	}
	depth := min(gaugeDepth, x.passages/20)
	sum := 0.0
	for i, n := range sample {
		if vectors[i].Values == nil { // the model cannot do it
			continue
		}
		hits, err := c.Query(ctx, vector.Query{Vector: vectors[i].Values, Limit: 2 * depth})
		if err != nil {
			return err
		}
		sum += float64(x.agreeing(n.passages[0].id, texts[i], hits, depth)) / float64(depth)
	}
	chance := float64(depth) / float64(x.passages)
	agreement := (sum/float64(len(sample)) - chance) / (1 - chance)
	return writeTrust(ctx, m.lib.db, name, model, trust{min(max((agreement-distrust)/(trusted-distrust), 0), 1), notes})
}

// agreeing counts the first depth passages by words that are also among the first depth of hits, those of the passage's own note left out.
func (x *index) agreeing(passage int64, text string, hits []vector.Hit, depth int) (both int) {
	own, _ := x.noteOf(passage)
	q := parse(text)
	q.weigh(x)
	words := map[int64]bool{}
	for _, w := range x.best(q.wanted(), depth, func(note uint32) bool { return note != own }) {
		words[w.id] = true
	}
	left := depth
	for _, h := range hits {
		note, ok := x.noteOf(int64(h.ID))
		if !ok || note == own || left == 0 {
			continue
		}
		left--
		if words[int64(h.ID)] {
			both++
		}
	}
	return both
}
