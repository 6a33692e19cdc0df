package eval

import (
	"math"
	"testing"
)

// Computed by hand: log2 of 2, 3, 4, 5 is 1, 1.58496, 2, 2.32193.
func TestMeasuresAreThoseOfTrecEval(t *testing.T) {
	grades := map[string]int{"a": 3, "b": 2, "c": 1, "x": 0, "y": -1}
	ideal := 3 + 2/1.584963 + 1/2.0
	for _, tt := range []struct {
		name              string
		run               []Scored
		grades            map[string]int
		k                 int
		ndcg, recall, mrr float64
	}{
		{"the best order", []Scored{{"a", 3}, {"b", 2}, {"c", 1}}, grades, 10, 1, 1, 1},
		{"the worst order", []Scored{{"c", 3}, {"b", 2}, {"a", 1}}, grades, 10, (1 + 2/1.584963 + 3/2.0) / ideal, 1, 1},
		{"the score counts, not the line", []Scored{{"c", 1}, {"a", 3}, {"b", 2}}, grades, 10, 1, 1, 1},
		{"of equal scores the larger identifier is first", []Scored{{"a", 1}, {"z", 1}}, grades, 10, (3 / 1.584963) / ideal, 1.0 / 3, 0.5},
		{"identifiers are compared as text", []Scored{{"10", 1}, {"9", 1}}, map[string]int{"10": 1}, 10, 1 / 1.584963, 1, 0.5},
		{"what is judged irrelevant or worse gains nothing", []Scored{{"y", 4}, {"x", 3}, {"a", 2}}, grades, 10, (3 / 2.0) / ideal, 1.0 / 3, 1.0 / 3},
		{"cut at 1", []Scored{{"b", 2}, {"a", 1}}, grades, 1, 2.0 / 3, 1.0 / 3, 1},
		{"the cut holds for the ideal too", []Scored{{"a", 2}}, grades, 1, 1, 1.0 / 3, 1},
		{"nothing found", nil, grades, 10, 0, 0, 0},
		{"nothing relevant", []Scored{{"a", 1}}, map[string]int{"a": 0}, 10, 0, 0, 0},
		{"not judged", []Scored{{"a", 1}}, nil, 10, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near(t, "nDCG", NDCG(tt.run, tt.grades, tt.k), tt.ndcg)
			near(t, "recall", Recall(tt.run, tt.grades, tt.k), tt.recall)
			near(t, "reciprocal rank", ReciprocalRank(tt.run, tt.grades), tt.mrr)
		})
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-5 {
		t.Errorf("%s is %.6f, want %.6f", what, got, want)
	}
}
