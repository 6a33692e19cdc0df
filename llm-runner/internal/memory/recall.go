package memory

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// mostRecalled is how many facts come along with a question.
const mostRecalled = 5

// Recall returns the current facts that belong to a question, best first, at most a few. Facts that contradict each other are left out until a
// person has decided, and so is everything where memory is off. private says that no cloud provider may be told the question.
func (s *Service) Recall(ctx context.Context, question string, private bool) ([]Fact, error) {
	if s.Off {
		return nil, nil
	}
	all, err := s.List(ctx, Current)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(f Fact) bool { return f.Conflict != 0 })
	about := topics(question)
	score := map[int64]float64{}
	for _, f := range all {
		if n := likeness(about, topics(f.Text)); n > 0 {
			score[f.ID] = 1 + n
		}
	}
	if s.Search != nil {
		found, err := s.Search(ctx, question, mostRecalled, private)
		if err != nil {
			return nil, err
		}
		for i, name := range found {
			if id, err := strconv.ParseInt(strings.TrimPrefix(name, privateFolder), 10, 64); err == nil {
				score[id] += 1 - float64(i)/mostRecalled
			}
		}
	}
	all = slices.DeleteFunc(all, func(f Fact) bool { return score[f.ID] == 0 })
	slices.SortStableFunc(all, func(a, b Fact) int {
		switch {
		case score[a.ID] > score[b.ID]:
			return -1
		case score[a.ID] < score[b.ID]:
			return 1
		}
		return 0
	})
	return all[:min(len(all), mostRecalled)], nil
}
