package memory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Report is what one Learn did.
type Report struct {
	Messages   int            `json:"messages"`   // read
	Asked      int            `json:"asked"`      // questions to a model
	Learned    []int64        `json:"learned"`    // new facts
	Repeated   int            `json:"repeated"`   // said before
	Superseded int            `json:"superseded"` // facts whose place a correction took
	Conflicts  int            `json:"conflicts"`  // contradictions that were opened
	Dropped    map[string]int `json:"dropped"`    // proposals that were not kept, by reason
	Forgotten  int            `json:"forgotten"`  // facts whose message is gone
	Waiting    int            `json:"waiting"`    // private messages that no model of the person's own can read now
	Failed     int            `json:"failed"`     // messages that could not be read while others were: they are tried again
	Input      int64          `json:"input_tokens"`
	Output     int64          `json:"output_tokens"` // of all questions, as far as the models told
	MicroUSD   int64          `json:"micro_usd"`     // as far as prices are known
}

// Sentence says it for people.
func (r Report) Sentence() string {
	text := fmt.Sprintf("%d messages read, %d facts learned, %d repeated, %d replaced by corrections, %d contradictions to decide", r.Messages, len(r.Learned), r.Repeated, r.Superseded, r.Conflicts)
	dropped := 0
	for _, n := range r.Dropped {
		dropped += n
	}
	if dropped > 0 {
		text += fmt.Sprintf("; %d proposals dropped", dropped)
	}
	if r.Forgotten > 0 {
		text += fmt.Sprintf("; %d facts forgotten with their conversations", r.Forgotten)
	}
	if r.Waiting > 0 {
		text += fmt.Sprintf("; %d private messages wait for a model on a machine of your own", r.Waiting)
	}
	if r.Failed > 0 {
		text += fmt.Sprintf("; %d messages could not be read, and are tried again", r.Failed)
	}
	return text + "."
}

const (
	failuresInLine = 3 // messages in line that fail: then it is not the messages
	failuresOfOne  = 3 // times that a message may fail while others are read
)

// itself says that an error may be a message's own: an answer that broke off or took too long, and nothing that would befall any message.
func itself(err error) bool {
	var e *llm.Error
	var busy *llm.BusyError
	return errors.As(err, &e) && !errors.As(err, &busy) && !e.Kind.Permanent() && e.Kind != llm.Cancelled && e.Kind != llm.Quota
}

// Whole is what a run did in all, of which last is the report of its last Learn: where nobody could answer for a while it took several.
func (s *Service) Whole(ctx context.Context, run string, last Report) (Report, error) {
	if err := s.account(ctx, run, &last); err != nil {
		return last, err
	}
	return last, nil
}

// Learn reads what the person has written since the last time. run names the work in the history of facts. Where nobody can answer now the
// error is a *llm.BusyError, and what was read is kept: the next Learn goes on after it, and asks no question twice. A message that fails
// where others are read holds up none of them, and is given up after a few times.
func (s *Service) Learn(ctx context.Context, run string) (Report, error) {
	s.learning.Lock()
	defer s.learning.Unlock()
	r := Report{Learned: []int64{}, Dropped: map[string]int{}}
	var err error
	if r.Forgotten, err = s.Conversation(ctx); err != nil {
		return r, err
	}
	if err := s.compare(ctx, &r); err != nil {
		return r, err
	}
	fresh, done, err := s.fresh(ctx)
	if err != nil {
		return r, err
	}
	end := func(m Message, err error) (Report, error) {
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return r, errors.Join(fmt.Errorf("learn from message %d: %w", m.ID, err), s.finish(lasting)) // what was learned can be found
	}
	skip := func(m Message, why drop) error {
		r.Dropped[string(why)]++
		return s.DB.Tx(ctx, func(tx *transaction) error {
			_, err := s.markRead(ctx, tx, m, run, 0, map[string]int{string(why): 1}, time.Now())
			return err
		})
	}
	var failed []Message
	var first error // of failed
	line := 0
	for _, m := range fresh {
		before := r.Asked
		err := s.readOne(ctx, run, m, &r)
		if r.Asked > before {
			line = 0
		}
		var refused *llm.Error
		if errors.As(err, &refused) && refused.Kind == llm.BadRequest && !m.Private { // asking again would not help
			err = skip(m, dropRefused)
		}
		switch {
		case m.Private && (errors.Is(err, ErrNoModel) || refused != nil && refused.Kind == llm.BadRequest): // a cloud provider would have answered
			r.Waiting++
			delete(done, m.Chat)
			continue
		case itself(err) && ctx.Err() == nil:
			if line++; line == failuresInLine {
				return end(m, err)
			}
			s.log.Warn("read a message", "message", m.ID, "error", err)
			failed, first = append(failed, m), cmp.Or(first, err)
			delete(done, m.Chat)
			continue
		case err != nil:
			return end(m, err)
		}
		r.Messages++
	}
	if len(failed) > 0 && r.Asked == 0 { // nobody answered anything
		return end(failed[0], first)
	}
	for _, m := range failed {
		times, err := s.failedAgain(ctx, m.ID)
		if err == nil && times < failuresOfOne {
			r.Failed++
		} else if err == nil {
			err = skip(m, dropFailed)
		}
		if err != nil {
			return end(m, err)
		}
	}
	if err := s.seen(ctx, done); err != nil {
		return r, err
	}
	s.passed("seen")
	return r, s.finish(ctx)
}

// fresh returns the messages that were not read yet, in the order in which they were said, and the conversations that are then read to
// their ends.
func (s *Service) fresh(ctx context.Context) (all []Message, done map[int64]time.Time, err error) {
	conversations, err := s.Conversations(ctx)
	if err != nil {
		return nil, nil, err
	}
	seen, err := s.chatsSeen(ctx)
	if err != nil {
		return nil, nil, err
	}
	done = map[int64]time.Time{}
	for _, c := range conversations {
		if !c.Changed.After(seen[c.ID]) {
			continue
		}
		said, err := s.Said(ctx, c.ID)
		if err != nil {
			return nil, nil, err
		}
		read, err := s.readBefore(ctx, c.ID)
		if err != nil {
			return nil, nil, err
		}
		done[c.ID] = c.Changed
		for _, m := range said {
			switch {
			case m.Open:
				delete(done, c.ID)
			case !read[m.ID]:
				all = append(all, m)
			case m.Private: // it may have become so by an answer that came later
				if err := s.conceal(ctx, m.ID); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b Message) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return all, done, nil
}

// A placed fact is one that is about to be written, and where it belongs.
type placed struct {
	fact       Fact
	repeats    int64   // the fact that says the same; 0 none
	supersedes []int64 // facts that it corrects
	conflicts  []int64 // facts that cannot be true beside it
}

// neighbours is how many facts a new one is compared with.
const neighbours = 3

// nearest are facts with something in common with another, and how much.
type nearest []struct {
	fact  Fact
	score float64
}

func (n *nearest) add(f Fact, score float64) {
	if score > 0 {
		*n = append(*n, struct {
			fact  Fact
			score float64
		}{f, score})
	}
}

// most are the nearest ones, a few, the newest first where they are alike.
func (n nearest) most() (all []Fact) {
	for range min(len(n), neighbours) {
		best := 0
		for i := range n {
			if n[i].score > n[best].score || n[i].score == n[best].score && n[i].fact.ID > n[best].fact.ID {
				best = i
			}
		}
		all = append(all, n[best].fact)
		n = slices.Delete(slices.Clone(n), best, best+1)
	}
	return all
}

// readOne reads a message, and writes what comes of it and that it was read in one transaction.
func (s *Service) readOne(ctx context.Context, run string, m Message, r *Report) error {
	x := read(m.Text)
	dropped := map[string]int{}
	var places []placed
	if x.cut {
		dropped[string(dropLong)]++
	}
	for _, window := range x.windows() {
		answer, err := s.ask(ctx, m, r, extraction, window, "facts", extractionSchema, x.sift)
		if err != nil {
			return err
		}
		for _, c := range answer.Facts {
			p, why, err := s.place(ctx, m, r, places, c)
			if err != nil {
				return err
			}
			if why != "" {
				dropped[string(why)]++
				continue
			}
			places = append(places, p)
		}
		for why, n := range answer.Dropped {
			dropped[why] += n
		}
	}
	s.passed("placed")
	now := time.Now()
	var fresh []int64
	repeated := 0
	s.changing.Lock()
	defer s.changing.Unlock()
	err := s.DB.Tx(ctx, func(tx *transaction) error {
		fresh, repeated = nil, 0
		first, err := s.markRead(ctx, tx, m, run, len(places), dropped, now)
		if err != nil {
			return err
		}
		if !first { // another process has read it meanwhile, or what it said was forgotten: of the answer no byte may be left
			return wantScrub(ctx, tx)
		}
		for _, p := range places {
			id, made, err := s.write(ctx, tx, p, run, now)
			if err != nil {
				return err
			}
			if made {
				fresh = append(fresh, id)
			} else {
				repeated++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.passed("written")
	r.Learned = append(r.Learned, fresh...)
	r.Repeated += repeated
	for _, p := range places {
		r.Superseded += len(p.supersedes)
		r.Conflicts += len(p.conflicts)
	}
	for why, n := range dropped {
		r.Dropped[why] += n
	}
	return nil
}

// An answer is what is kept of a model's answer: what of it passed.
type answer struct {
	Facts    []candidate    `json:"facts,omitempty"`
	Dropped  map[string]int `json:"dropped,omitempty"`
	Relation string         `json:"relation,omitempty"`
}

// sift returns what may be kept of an answer to extraction, as JSON.
func (r reading) sift(text string) string {
	kept := answer{Dropped: map[string]int{}}
	all, misfits, err := parse(text)
	if err != nil {
		misfits++
	}
	if misfits > 0 {
		kept.Dropped[string(dropForm)] = misfits
	}
	for i, c := range all {
		why := dropMany
		if i < mostFacts {
			why = r.judge(&c)
		}
		if why != "" {
			kept.Dropped[string(why)]++
			continue
		}
		kept.Facts = append(kept.Facts, c)
	}
	b, err := json.Marshal(kept)
	if err != nil {
		panic("memory: " + err.Error()) // strings and numbers always can be written
	}
	return string(b)
}

// ask asks a question about a message, or returns what was answered before. What sift leaves of the answer is on disk when it returns.
func (s *Service) ask(ctx context.Context, m Message, r *Report, instructions, text, name string, schema json.RawMessage, sift func(string) string) (a answer, err error) {
	sum := sha256.Sum256([]byte(instructions + "\x00" + text))
	key := hex.EncodeToString(sum[:])
	kept, ok, err := s.answered(ctx, m.ID, key)
	if err != nil {
		return a, err
	}
	if !ok {
		model, err := s.Model(m.Private)
		if err != nil {
			return a, err
		}
		came, err := llm.Collect(s.Provider.Stream(ctx, request(model, instructions, text, name, schema, m.Private)))
		if err != nil {
			return a, err
		}
		r.Asked++
		r.Input, r.Output = r.Input+came.Usage.Input.Or(0), r.Output+came.Usage.Output.Or(0)
		if s.Cost != nil && came.Route != nil {
			r.MicroUSD += s.Cost(came.Route.Provider, came.Route.Model, came.Usage).Or(0)
		}
		kept = sift(came.Message.Text())
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // it was paid: it is kept whatever has become of ctx
		err = s.keepAnswer(lasting, m.ID, key, kept)
		cancel()
		if err != nil {
			return a, err
		}
		s.passed("kept")
	}
	if err := json.Unmarshal([]byte(kept), &a); err != nil {
		return a, fmt.Errorf("read kept answer: %w", err)
	}
	return a, nil
}

// relate asks how two facts stand to each other. An answer that does not fit means independent: nothing is merged or doubted for it.
func (s *Service) relate(ctx context.Context, m Message, r *Report, known Fact, text string) (string, error) {
	private := m
	private.Private = m.Private || known.Private
	a, err := s.ask(ctx, private, r, comparison, "Known: "+known.Text+"\nNew: "+text, "relation", comparisonSchema, func(answer string) string {
		var got struct {
			Relation string `json:"relation"`
		}
		if err := strict(answer, &got); err != nil || got.Relation != same && got.Relation != contradicts {
			got.Relation = independent
		}
		return fmt.Sprintf(`{"relation":%q}`, got.Relation)
	})
	if errors.Is(err, ErrNoModel) && !m.Private { // the known fact may be shown to no model that there is
		return independent, nil
	}
	return a.Relation, err
}

// place finds where a candidate belongs among what is known.
func (s *Service) place(ctx context.Context, m Message, r *Report, before []placed, c candidate) (p placed, why drop, err error) {
	p.fact = Fact{Text: c.Fact, norm: normal(c.Fact), Origin: Learned, Confidence: c.Confidence, Private: m.Private,
		Sources: []Source{{Chat: m.Chat, Message: m.ID, Quote: c.Quote, Start: c.Start, Private: m.Private, Said: m.At}}}
	if slices.ContainsFunc(before, func(b placed) bool { return b.fact.norm == p.fact.norm }) {
		return p, dropMany, nil
	}
	all, err := s.facts(ctx, s.DB.Read(), filter{})
	if err != nil {
		return p, "", err
	}
	near, undone := nearest{}, nearest{}
	mine, about := topics(c.Fact), topics(c.Fact+" "+sentenceOf(m.Text, c.Start))
	taken := false
	for _, f := range all {
		switch {
		case f.norm == p.fact.norm && f.State == Current:
			p.repeats = f.ID
			return p, "", nil
		case f.norm == p.fact.norm && f.State == Undone:
			taken = true
		case f.State == Current:
			near.add(f, max(likeness(mine, topics(f.Text)), likeness(about, topics(f.Text))/2))
		case f.State == Undone:
			undone.add(f, likeness(mine, topics(f.Text)))
		}
	}
	if taken {
		return p, dropTaken, nil
	}
	for _, f := range undone.most() {
		relation, err := s.relate(ctx, m, r, f, c.Fact)
		if err != nil {
			return p, "", err
		}
		if relation == same { // in other words
			return p, dropTaken, nil
		}
	}
	for _, f := range near.most() {
		relation, err := s.relate(ctx, m, r, f, c.Fact)
		if err != nil {
			return p, "", err
		}
		switch {
		case relation == same:
			p.repeats, p.supersedes, p.conflicts = f.ID, nil, nil
			return p, "", nil
		case relation != contradicts:
		case c.Corrects && correction(sentenceOf(m.Text, c.Start)) && !m.At.Before(f.said()):
			p.supersedes = append(p.supersedes, f.ID)
		default:
			p.conflicts = append(p.conflicts, f.ID)
		}
	}
	return p, "", nil
}

// compare has a model say how facts that were told or added stand to older ones; newer ones were compared with them when they came. What no
// model can say now waits for the next time.
func (s *Service) compare(ctx context.Context, r *Report) error {
	raw, err := s.facts(ctx, s.DB.Read(), filter{raw: true, state: Current})
	if err != nil {
		return err
	}
	slices.Reverse(raw) // the oldest first: of two that are alike the newer one is compared with the older
	for _, f := range raw {
		all, err := s.facts(ctx, s.DB.Read(), filter{state: Current})
		if err != nil {
			return err
		}
		near := nearest{}
		for _, g := range all {
			if g.ID < f.ID {
				near.add(g, likeness(topics(f.Text), topics(g.Text)))
			}
		}
		var conflicts []int64
		var twin Fact
		for _, g := range near.most() {
			var relation string
			relation, err = s.relate(ctx, Message{ID: -f.ID, Private: f.Private}, r, g, f.Text)
			if err != nil {
				break
			}
			if relation == same {
				twin, conflicts = g, nil
				break
			}
			if relation == contradicts {
				conflicts = append(conflicts, g.ID)
			}
		}
		var busy *llm.BusyError
		var refused *llm.Error
		switch {
		case errors.As(err, &busy) || ctx.Err() != nil:
			return fmt.Errorf("compare fact %d: %w", f.ID, err)
		case errors.As(err, &refused) && refused.Kind == llm.BadRequest && !f.Private: // asking again would not help
		case err != nil:
			s.log.Warn("compare a fact that was told or added", "fact", f.ID, "error", err)
			continue
		}
		s.changing.Lock()
		done, err := s.settleCompared(ctx, f, conflicts, twin, time.Now())
		s.changing.Unlock()
		if err != nil {
			return err
		}
		s.passed("compared")
		if done {
			r.Conflicts += len(conflicts)
		}
		if done && twin.ID != 0 {
			r.Repeated++
		}
	}
	return nil
}

// said is when a fact was said last, or made.
func (f Fact) said() time.Time {
	last := f.Created
	for i, x := range f.Sources {
		if i == 0 || x.Said.After(last) {
			last = x.Said
		}
	}
	return last
}

// sentenceOf is the sentence of a text in which a byte stands.
func sentenceOf(text string, at int) string {
	for _, s := range sentences(text) {
		if s.meets(at, at+1) {
			return text[s.from:s.to]
		}
	}
	return text
}
