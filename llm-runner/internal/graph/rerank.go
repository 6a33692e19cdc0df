package graph

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// mostGathered is how many passages of all searches are ordered before the best are graded; ranksAtOnce is how many a model orders at once, and rankings how
// often it is asked.
const (
	mostGathered = 72
	ranksAtOnce  = 12
	rankings     = 3
)

// rerank puts the best of what was found first and leaves out the rest, and what says the same twice.
func (q *Inquiries) rerank(s *Step, x *Inquiry) error {
	if x.straight() {
		return q.rank(s, x)
	}
	all, by := len(x.Found), "by the fused score"
	if model, ok := q.orders(); ok && !x.Secret && all > 1 {
		why, err := q.sortFound(s, x, model)
		if err != nil {
			return err
		}
		if by = "by " + model; why != "" {
			by = fmt.Sprintf("by the fused score, since %s did not say: %s", model, why)
		}
	}
	kept, twins := distinct(x.Found)
	x.drop(twins...)
	x.Found = kept[:min(len(kept), mostFound)]
	text := fmt.Sprintf("%d of %d kept, %s", len(x.Found), all, by)
	if len(twins) > 0 {
		text += "; " + plural(len(twins), "says", "say") + " the same as another"
	}
	if n := len(kept) - len(x.Found); n > 0 {
		text += fmt.Sprintf("; %d behind the best", n)
	}
	s.Note("%s", text)
	return nil
}

// orders says which model orders passages.
func (q *Inquiries) orders() (string, bool) {
	if q.Orders == nil {
		return "", false
	}
	return q.Orders()
}

// sortFound has a model order the best of what was found: dealt into hands as cards are, each ordered beside the others, and the first of each before the
// second of any. why says why it did not.
func (q *Inquiries) sortFound(s *Step, x *Inquiry, model string) (why string, err error) {
	best := min(len(x.Found), ranksAtOnce*rankings)
	hands := make([][]int, (best+ranksAtOnce-1)/ranksAtOnce)
	for i := range best {
		hands[i%len(hands)] = append(hands[i%len(hands)], i)
	}
	orders, whys := make([][]int, len(hands)), make([]string, len(hands))
	if err := each(len(hands), func(h int) (err error) {
		all := make([]library.Ranked, len(hands[h]))
		for k, i := range hands[h] {
			f := x.Found[i]
			all[k] = library.Ranked{Title: f.Title, Heading: f.Heading, Text: f.Quote, Private: f.Private}
		}
		orders[h], whys[h], err = q.order(s, fmt.Sprintf("order %d", h+1), library.OrderRequest(model, x.Question, all), len(all))
		return err
	}); err != nil {
		return "", err
	}
	for _, w := range whys {
		if w != "" {
			return w, nil
		}
	}
	var order []int
	for place := range ranksAtOnce {
		for h := range hands {
			if place < len(orders[h]) {
				order = append(order, hands[h][orders[h][place]])
			}
		}
	}
	x.Found = library.Reordered(x.Found, 0, best, order)
	return "", nil
}

// rank has the best of what was found ordered, where a model does that.
func (q *Inquiries) rank(s *Step, x *Inquiry) error {
	req, from, to, ok, err := q.Notes.Ranking(s.Context(), x.Ask, x.Leads)
	if err != nil {
		return err
	}
	if !ok {
		s.Note("%s in the order of the search", plural(len(x.Leads), "passage", "passages"))
		return nil
	}
	order, why, err := q.order(s, "order", req, to-from)
	if err != nil {
		return err
	}
	if why != "" {
		s.Note("%s in the order of the search, since %s did not say: %s", plural(len(x.Leads), "passage", "passages"), req.Model, why)
		return nil
	}
	x.Leads = library.Reordered(x.Leads, from, to, order)
	s.Note("the best %d of %d ordered by %s, which finds %d of use", to-from, len(x.Leads), req.Model, len(order))
	return nil
}

// order asks the model for the order of n passages. why says why there is none; err only what ends the node.
func (q *Inquiries) order(s *Step, name string, req llm.Request, n int) (order []int, why string, err error) {
	a, err := s.Ask(hurried{q.Reader, library.RankPatience}, name, req)
	switch {
	case err == nil:
		return library.OrderIn(a.Message.Text(), n), "", nil
	case s.Context().Err() != nil || errors.Is(err, ErrBudget):
		return nil, "", err
	}
	return nil, err.Error(), nil
}

// hurried is a provider whose answers are waited for no longer than a while.
type hurried struct {
	llm.Provider
	most time.Duration
}

func (h hurried) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		ctx, cancel := context.WithTimeout(ctx, h.most)
		defer cancel()
		for ev, err := range h.Provider.Stream(ctx, req) {
			if !yield(ev, err) {
				return
			}
		}
	}
}
