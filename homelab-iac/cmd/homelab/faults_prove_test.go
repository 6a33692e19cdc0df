//go:build prove

package main

import (
	"os"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// TestFaults plays the catalogue: what was there before comes back exactly, people are told once and once that it is over, and the
// next run is whole.
func TestFaults(t *testing.T) {
	t.Parallel()
	all := &shared{s3: restictest.S3(t), pg: newDatabase(t)}
	plays := map[string]play{}
	for _, group := range []map[string]play{killed, locks, sources, dumps, resticFaults, damages, disks, stores, clocks, tellings} {
		for name, p := range group {
			plays[name] = p
		}
	}
	played := 0
	for _, f := range catalogue {
		if f.In != "" {
			continue
		}
		id := f.Group + ": " + f.Name
		p, ok := plays[id]
		if !ok {
			t.Errorf("nobody plays %q", id)
			continue
		}
		played++
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			f.play(newScene(t, all, p), p)
		})
	}
	if played != len(plays) {
		t.Errorf("%d plays, and %d faults to be played", len(plays), played)
	}
}

func (f fault) play(s *scene, p play) {
	t := s.t
	s.does(0, "1 of 1 services safe", "backup", "run", "fast")
	s.does(0, "is whole", "backup", "check", "fast")
	s.first = measure(t, s.source)
	s.before = s.newest()
	if pushes, posts := s.heard(); strings.Contains(pushes, "down") || posts != "" {
		t.Fatalf("before the fault: pushed %q, posted %q", pushes, posts)
	}

	s.hurry(p.bounds)
	if p.begin != nil {
		p.begin(s)
	}
	switch {
	case p.act != nil:
		p.act(s)
	case p.code == 0 && f.Told == "":
		s.does(0, "1 of 1 services safe", "backup", "run", "fast")
	default:
		s.does(max(p.code, 1), "", "backup", "run", "fast")
	}
	if p.special == nil {
		f.told(s, p)
	} else if !p.special(s) {
		t.Error("people were not told as they should be")
	}

	s.hurry(nil)
	if p.end != nil {
		p.end(s)
	}
	if err := os.WriteFile(s.source+"/later.md", []byte("written afterwards"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := p.again
	if again == nil {
		again = []string{"backup", "run", "fast"}
	}
	s.does(0, "", again...)
	if _, posts := s.heard(); p.special == nil && (strings.Count(posts, "🟢") != 1) == (f.Told != "") {
		t.Errorf("when it was over, posted %q", posts)
	}
	if strings.Join(again, " ") != "backup run fast" {
		s.does(0, "1 of 1 services safe", "backup", "run", "fast")
	}
	if code, out := s.try("watch"); code != 0 && !p.small || strings.Count(out, "TROUBLE") > 1 {
		t.Errorf("afterwards homelab watch ends with %d\n%s", code, out)
	}
	after := s.newest()
	if after.ID == s.before.ID {
		t.Error("there is no newer snapshot")
	}
	s.comesBack("what was there before", s.before.ID, s.first)
	s.comesBack("what came afterwards", after.ID, measure(t, s.source))
	s.nothingIsLeft()
}

// told checks the messages of the time when it lasted.
func (f fault) told(s *scene, p play) {
	s.t.Helper()
	pushes, posts := s.heard()
	if f.Told == "" {
		if strings.Contains(posts, "🔴") || strings.Contains(pushes, "down") {
			s.t.Errorf("told without need: pushed %q, posted %q", pushes, posts)
		}
		return
	}
	if strings.Count(posts, "🔴") != 1 || !strings.Contains(posts, f.Told) {
		s.t.Errorf("posted %q, want one message with %q", posts, f.Told)
	}
	if p.pushed != "-" && !strings.Contains(pushes, "down") {
		s.t.Errorf("Kuma heard %q", pushes)
	}
}
