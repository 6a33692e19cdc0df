package engine

import (
	"slices"
	"testing"
	"time"
)

func TestWhoStandsStillIsDeadAfterAWhile(t *testing.T) {
	start := time.Now()
	var w watch
	for _, step := range []struct {
		after time.Duration
		all   []beat
		dead  []string
	}{
		{0, []beat{{"a", "x", 5}, {"b", "x", 1}}, nil},
		{deadAfter - time.Second, []beat{{"a", "x", 5}, {"b", "x", 2}}, nil},
		{deadAfter, []beat{{"a", "x", 5}, {"b", "x", 2}, {"c", "x", 0}}, []string{"a"}},
		{deadAfter + time.Second, []beat{{"b", "x", 2}, {"c", "x", 0}}, nil},             // a's row is gone
		{deadAfter + 2*time.Second, []beat{{"a", "x", 5}, {"b", "x", 3}}, nil},           // and back: as if never seen
		{deadAfter + 3*time.Second, []beat{{"b", "x", stopped}}, []string{"b"}},          // it said goodbye
		{deadAfter + 4*time.Second, []beat{{"old", "here", 9}}, []string{"old"}},         // it worked in our data directory
		{3 * deadAfter, []beat{{"b", "x", 3}, {"d", "x", 1}}, nil},                       // nothing is known of them yet
		{4 * deadAfter, []beat{{"b", "x", 3}, {"d", "x", 1}}, []string{"b", "d"}},        // together
		{4*deadAfter + time.Second, []beat{{"b", "x", 4}, {"d", "x", 1}}, []string{"d"}}, // one was only slow
	} {
		var dead []string
		for _, b := range w.look(step.all, "here", deadAfter, start.Add(step.after)) {
			dead = append(dead, b.id)
		}
		if !slices.Equal(dead, step.dead) {
			t.Errorf("after %s: dead %v, want %v", step.after, dead, step.dead)
		}
	}
}
