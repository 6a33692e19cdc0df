package library

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/vector"
)

// What a store is told of a filter lets through exactly what the filter keeps, whatever paths and tags there are.
func TestAStoreIsToldTheWholeFilter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	type note struct{ path, tags string }
	for round := range 200 {
		var notes []note
		for i := range 60 {
			path := ""
			for range r.IntN(4) {
				path += pick("Work", "work-2026", "Ärger", "a", "b b", "https:/") + "/"
			}
			var tags []string
			for range r.IntN(3) {
				tags = append(tags, pick("Project", "project/garden", "projector", "deep work", "work"))
			}
			notes = append(notes, note{fmt.Sprintf("%s%s-%d.md", path, pick("plan", "WORK", "x"), i), foldTags(tags)})
		}
		f := Filter{}
		for range 1 + r.IntN(2) {
			f.Path = append(f.Path, pick("work", "work/", "ärger", "a/b", "WORK-2", "plan", "/", ".md", "b b/x", "nowhere"))
		}
		if r.IntN(2) == 0 {
			f.Tags = append(f.Tags, pick("project", "work", "deep work"))
		}
		k := newKeeping(f)
		for i, n := range notes {
			if len(f.Tags) == 0 || strings.Contains(n.tags, "\n"+f.Tags[0]+"\n") || strings.Contains(n.tags, "\n"+f.Tags[0]+"/") { // as the database does
				k.add(uint32(i), n.path, n.tags)
			}
		}
		if len(k.notes) == 0 {
			continue // then a name is told that nobody has
		}
		told, whole := k.stored()
		if !whole {
			t.Fatal("it is not told all")
		}
		for i, n := range notes {
			d := vector.Document{Name: n.path, Tags: trimmed(strings.Split(n.tags, "\n"))}
			if got, want := told.Match(d), k.notes[uint32(i)]; got != want {
				t.Errorf("round %d: %+v lets %q with %q through: %v, want %v", round, told, n.path, d.Tags, got, want)
			}
			d.Tags = strings.Fields(n.tags) // as earlier versions put them
			if k.notes[uint32(i)] && !told.Match(d) {
				t.Errorf("round %d: %+v leaves %q with %q out", round, told, n.path, d.Tags)
			}
		}
	}
}

func TestAStoreIsNotToldThousandsOfNames(t *testing.T) {
	k := newKeeping(Filter{Path: []string{"plan"}, Type: "note"})
	for i := range mostTold + 1 {
		k.add(uint32(i), fmt.Sprintf("%d/plan.md", i), "")
	}
	if told, whole := k.stored(); whole || len(told.Names)+len(told.Folders) > 0 || len(told.Types) != 1 || len(k.notes) != mostTold+1 {
		t.Errorf("%d names are told, %v", len(told.Names), whole)
	}
}
