package library

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Passages returns what answers r.Query best in at most budget characters together: pieces of notes, quoted byte for byte, the
// best first. r.Limit bounds the passages that are looked into, besides the neighbours of the best; 0: a number that goes with the
// budget. What is said twice in nearly the same words is returned once (see said).
func (l *Library) Passages(ctx context.Context, r Request, budget int) ([]Hit, error) {
	if r.Limit <= 0 {
		r.Limit = max(10, budget/100)
	}
	s, found, err := l.find(ctx, r)
	if err != nil || len(found.Hits) == 0 {
		return nil, err
	}
	hits, err := s.widened(ctx, found.Hits)
	if err != nil {
		return nil, err
	}
	return s.pack(hits, budget), nil
}

// The passages before and after the best hits are looked into too, because an answer may go on there: as worth half of the hit.
const (
	widenedHits   = 5
	neighbourPart = 0.5
)

// widened returns hits and the neighbours of the best of them. The passages of a note have ids that follow one another.
func (s *search) widened(ctx context.Context, hits []Hit) ([]Hit, error) {
	here, scores := map[int64]bool{}, map[int64]float64{}
	for _, h := range hits {
		here[h.id] = true
	}
	var ids []int64
	for _, h := range hits[:min(widenedHits, len(hits))] {
		for _, id := range []int64{h.id - 1, h.id + 1} {
			if note, ok := s.index.noteOf(id); ok && int64(note) == h.note && !here[id] {
				ids = append(ids, id)
				here[id], scores[id] = true, neighbourPart*h.Score
			}
		}
	}
	found, err := passages(ctx, s.lib.db, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if f, ok := found[id]; ok {
			h := s.hit(id, f)
			h.Score = scores[id]
			s.query.examine(h)
			hits = append(hits, *h)
		}
	}
	return hits, nil
}

// A unit is a piece of a passage that is returned whole or not at all: a sentence, an item of a list, a short block.
type unit struct {
	hit        *Hit
	from, to   int // bytes of the hit's Quote
	characters int
	heading    bool      // not worth a place: the trail of headings comes with every passage
	holds      []float64 // of each term of the question: 1 it stands here, less: near by
	worth      float64
	taken      bool
}

// What a unit is worth: each of the question's words that stands in it counts in full; one that stands n units away counts
// nearPart to the power n, because an answer rarely repeats the question; one in a heading above counts abovePart. The score of its
// passage adds up to passagePart of the best unit's. Of two alike the shorter one is taken first, but not by much.
const (
	nearPart    = 0.7
	abovePart   = 0.3
	passagePart = 0.4
	lengthPower = 0.15
)

// pack chooses units from hits until budget is used up, and joins those that touch.
func (s *search) pack(hits []Hit, budget int) []Hit {
	slices.SortFunc(hits, func(a, b Hit) int { return cmp.Or(cmp.Compare(a.note, b.note), cmp.Compare(a.Start, b.Start)) })
	var units []unit
	score := 1e-9
	for i := range hits {
		score = max(score, hits[i].Score)
		if !hits[i].front {
			units = append(units, s.units(&hits[i], min(quoteTarget, budget/8))...)
		}
	}
	reach(units)
	top := 1e-9
	for i := range units {
		for t, h := range units[i].holds {
			units[i].worth += h * s.query.terms[t].weight
		}
		top = max(top, units[i].worth)
	}
	order := make([]int, len(units))
	for i := range units {
		u := &units[i]
		order[i] = i
		u.worth = (u.worth/top + passagePart*u.hit.Score/score) / math.Pow(float64(u.characters)+20, lengthPower)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(units[b].worth, units[a].worth) })
	var before said
	for _, i := range order {
		u := &units[i]
		all := stems(u.text(), u.hit.language)
		if u.heading || u.characters > budget || len(all) == 0 || before.had(all) {
			continue
		}
		u.taken = true
		budget -= u.characters
	}
	return joined(units)
}

// said is what was said already, as stems.
type said []saying

type saying struct {
	words  map[string]bool
	series map[[3]string]bool // each three that follow one another
}

const (
	sayingLeast = 4    // words: "yes", or a row of dashes, may be said twice
	sayingSame  = 0.85 // of the series of the longer one, from which two sayings are the same
)

// had says that these words were said before: each of them, and nearly all in the same order. A word that is new, such as another date,
// makes another statement of it. What was not said before has been from now on.
func (s *said) had(all []string) bool {
	if len(all) < sayingLeast {
		return false
	}
	one := saying{map[string]bool{}, map[[3]string]bool{}}
	for i, w := range all {
		one.words[w] = true
		if i >= 2 {
			one.series[[3]string(all[i-2:i+1])] = true
		}
	}
	for _, before := range *s {
		same := 0
		for w := range one.series {
			if before.series[w] {
				same++
			}
		}
		if float64(same) < sayingSame*float64(max(len(one.series), len(before.series))) {
			continue
		}
		news := false
		for w := range one.words {
			news = news || !before.words[w]
		}
		if !news {
			return true
		}
	}
	*s = append(*s, one)
	return false
}

func (u *unit) text() string { return u.hit.Quote[u.from:u.to] }

// adjoins says that u begins where before ends.
func (u *unit) adjoins(before *unit) bool {
	return before.hit.note == u.hit.note && before.hit.Start+before.to == u.hit.Start+u.from
}

// units takes a passage apart into blocks of at most limit bytes, or sentences, and notes what each unit holds of the question.
func (s *search) units(h *Hit, limit int) []unit {
	above := make([]float64, len(s.query.terms))
	for _, t := range tokensLike(h.Title+"\n"+strings.Join(h.Heading, "\n"), h.language, s.query.at) {
		if i, ok := s.query.at[t.stem]; ok {
			above[i] = abovePart
		}
	}
	var all []unit
	for _, b := range parts(h.Quote, limit) {
		u := unit{hit: h, from: b.start, to: b.end, heading: b.kind == head, holds: slices.Clone(above)}
		u.characters = utf8.RuneCountInString(u.text())
		for _, t := range tokensLike(u.text(), h.language, s.query.at) {
			if i, ok := s.query.at[t.stem]; ok {
				u.holds[i] = 1
			}
		}
		all = append(all, u)
	}
	return all
}

// reach lets the words that stand in a unit count in those around it.
func reach(units []unit) {
	pass := func(to, from *unit) {
		for t, h := range from.holds {
			to.holds[t] = max(to.holds[t], nearPart*h)
		}
	}
	for i := 1; i < len(units); i++ {
		if units[i].adjoins(&units[i-1]) {
			pass(&units[i], &units[i-1])
		}
	}
	for i := len(units) - 1; i > 0; i-- {
		if units[i].adjoins(&units[i-1]) {
			pass(&units[i-1], &units[i])
		}
	}
}

// joined returns the units taken as hits, those that touch as one, best first.
func joined(units []unit) []Hit {
	var all []Hit
	var last *unit
	for i := range units {
		u := &units[i]
		if !u.taken {
			continue
		}
		if last != nil && u.adjoins(last) {
			h := &all[len(all)-1]
			h.Quote += u.text()
			h.End = u.hit.Start + u.to
			h.Score = max(h.Score, u.worth)
		} else {
			h := *u.hit
			h.Citation = llm.Citation{Path: h.Path, Heading: h.Heading, Quote: u.text(), Start: h.Start + u.from, End: h.Start + u.to,
				Line: h.Line + strings.Count(h.Quote[:u.from], "\n")}
			h.Score = u.worth
			all = append(all, h)
		}
		last = u
	}
	for i := range all {
		all[i].EndLine = all[i].Line + strings.Count(strings.TrimSuffix(all[i].Quote, "\n"), "\n")
	}
	slices.SortStableFunc(all, func(a, b Hit) int { return cmp.Compare(b.Score, a.Score) })
	return all
}
