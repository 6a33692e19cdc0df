package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

const garden = "---\ntype: project\ntitle: \"Garden\"\nafter:\n  - \"[[House]]\"\n---\n# Ignored\n\nHello.\n\n## Beds\n\n- [x] Measure\n" +
	"- [ ] Dig\n  - [X] Compost\n    bought in May\n\n  and turned\n\nText ends it.\n  not evidence\n\n```\n- [ ] code\n```\n### Deeper\n1. [-] Gravel\n" +
	"\n## Planting ##\nafter: [[#Beds]], [[House#Water|the tap]]\ngate: alone for a week\n\n* [ ] Tomatoes\n"

func TestANoteBecomesAProject(t *testing.T) {
	p := Parse("plans/garden.md", []byte(garden))
	if p.Title != "Garden" || p.Path != "plans/garden.md" || len(p.Phases) != 2 {
		t.Fatalf("%+v", p)
	}
	for i := range p.Phases {
		for k := range p.Phases[i].Tasks {
			p.Phases[i].Tasks[k].mark = 0
		}
	}
	want := []Phase{
		{Name: "Beds", Line: 11, After: []string{"House"}, Tasks: []Task{
			{Text: "Measure", Done: true, Line: 13},
			{Text: "Dig", Line: 14},
			{Text: "Compost", Done: true, Line: 15, Depth: 1, Evidence: []string{"bought in May", "and turned"}},
			{Text: "Gravel", Dropped: true, Line: 27}}},
		{Name: "Planting", Line: 29, Gate: "alone for a week", After: []string{"House", "#Beds", "House#Water"}, Tasks: []Task{{Text: "Tomatoes", Line: 33}}},
	}
	if !reflect.DeepEqual(p.Phases, want) {
		t.Errorf("\n%+v, want\n%+v", p.Phases, want)
	}
	if done, total := p.Count(); done != 2 || total != 4 {
		t.Errorf("%d of %d", done, total)
	}
}

func TestHeadingsOfLevelOneOrNoneAreEnough(t *testing.T) {
	for text, want := range map[string]string{
		"# A\n- [ ] x\n# B\r\n- [x] y\r\n":    "n: A 0/1, B 1/1",
		"- [ ] x\n- [x] y":                    "n: n 1/2",
		"- [ ] early\n\n## A\n- [ ] x\n":      "n: n 0/1, A 0/1",
		"# T\n## A\n## B\n- [ ] x\n":          "T: A 0/0, B 0/1",
		"---\ntitle: no end\n- [ ] x\n":       "n: n 0/1",
		"\ufeff---\ntitle: T\n---\n- [ ] x\n": "T: T 0/1",
		"~~~\n- [ ] x\n```\n- [ ] y\n":        "n: ",
		"- [] no\n-[ ] no\n- [ ]no\n":         "n: ",
	} {
		p := Parse("n.md", []byte(text))
		var names []string
		for _, ph := range p.Phases {
			done, total := ph.Count()
			names = append(names, ph.Name+" "+string(rune('0'+done))+"/"+string(rune('0'+total)))
		}
		if got := p.Title + ": " + strings.Join(names, ", "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func board(notes map[string]string) Board {
	var all []Project
	for p, text := range notes {
		all = append(all, Parse(p, []byte(text)))
	}
	return Lay(all)
}

func TestPhasesStandAsEarlyAsWhatTheyWaitFor(t *testing.T) {
	b := board(map[string]string{
		"a.md":   "## One\n- [x] x\n## Two\nafter: [[#One]]\n- [ ] x\n## Side\n- [ ] x\n",
		"d/b.md": "## First\nafter: [[A#two]]\n- [ ] x\n## Last\nafter: [[#First]] [[a]]\n",
	})
	type row struct {
		name     string
		tick     int
		state    State
		critical bool
		after    string
	}
	var got []row
	for _, r := range b.Rows {
		x := row{r.Phase.Name, r.Tick, r.State, r.Critical, ""}
		for _, h := range r.After {
			x.after += h.Project + "#" + h.Phase
			if h.Critical {
				x.after += "!"
			}
			if h.Crosses {
				x.after += "*"
			}
			x.after += " "
		}
		got = append(got, x)
	}
	want := []row{{"One", 0, Done, true, ""}, {"Two", 1, Open, true, "a#One! "}, {"Side", 0, Open, false, ""},
		{"First", 2, Waiting, true, "a#Two!* "}, {"Last", 3, Waiting, true, "b#First! a#One* a#Two* a#Side* "}}
	if !reflect.DeepEqual(got, want) || b.Ticks != 4 || len(b.Faults) != 0 {
		t.Errorf("\n%+v, want\n%+v; %d ticks, %+v", got, want, b.Ticks, b.Faults)
	}
	only := b.Only("b")
	if len(only.Rows) != 2 || only.Rows[0].After[0].Row != -1 || only.Rows[1].After[0].Row != 0 || only.Rows[0].After[0].Phase != "Two" {
		t.Errorf("%+v", only)
	}
	if b.Rows[3].After[0].Row != 1 {
		t.Error("Only changed what it was made of")
	}
}

func TestLinksThatLeadNowhereOrInACircleAreNamed(t *testing.T) {
	b := board(map[string]string{
		"a.md":      "## One\nafter: [[#Three]]\n- [ ] x\n## Two\nafter: [[#One]]\n- [ ] x\n## Three\nafter: [[#Two]], [[#Four]], [[nobody#X]], [[same]]\n- [ ] x\n",
		"x/same.md": "- [ ] x\n", "y/same.md": "- [ ] x\n",
	})
	var said []string
	for _, f := range b.Faults {
		said = append(said, f.Path+" "+f.Text)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"[[#Four]] leads to no phase of a: it has One, Two, Three", "[[nobody#X]] leads to no project", "could be x/same.md or y/same.md",
		"which waits for this one itself"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q in\n%s", want, all)
		}
	}
	if len(b.Faults) != 4 || b.Ticks != 3 {
		t.Errorf("%d faults, %d ticks", len(b.Faults), b.Ticks)
	}
}

func TestPhasesOfTheProjectItselfHaveNoFault(t *testing.T) {
	text, err := os.ReadFile("../../../docs/phases.md")
	if err != nil {
		t.Fatal(err)
	}
	b := Lay([]Project{Parse("phases.md", text)})
	var stars []string
	for _, r := range b.Rows {
		for _, h := range r.After {
			if h.Critical && h.Strands {
				stars = append(stars, h.Phase+" > "+r.Phase.Name)
			}
		}
	}
	if want := "[Homelab P3: services > Runner P4: tools]"; fmt.Sprint(stars) != want {
		t.Errorf("critical handoffs from one strand to another are %q, not %s", stars, want)
	}
	if len(b.Faults) != 0 || len(b.Rows) != 12 || b.Rows[0].Total != 12 || b.Rows[0].Phase.Gate == "" {
		t.Errorf("%+v", b)
	}
}

// newService returns a service on a folder with one project.
func newService(t *testing.T, text string) (*Service, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "garden.md")
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return New(Config{DB: d, Dir: dir,
		List: func(context.Context) ([]string, error) { return []string{"garden.md", "gone.md"}, nil },
		Read: func(_ context.Context, p string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, p)) }}), file
}

func TestATickChangesOneByteOfTheNote(t *testing.T) {
	s, file := newService(t, garden)
	for _, step := range []struct {
		line int
		text string
		done bool
		from string
		to   string
	}{{14, "Dig", true, "- [ ] Dig", "- [x] Dig"}, {15, "Compost", false, "  - [X] Compost", "  - [ ] Compost"}, {13, "Measure", true, "- [x] Measure", "- [x] Measure"}} {
		before, _ := os.ReadFile(file)
		if err := s.Tick(t.Context(), "garden.md", step.line, step.text, step.done); err != nil {
			t.Fatal(err)
		}
		after, _ := os.ReadFile(file)
		if want := bytes.Replace(before, []byte(step.from), []byte(step.to), 1); !bytes.Equal(after, want) {
			t.Errorf("%q became %q", before, after)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left beside it: %v, %v", left, err)
	}
}

func TestATickOfWhatIsNotThereWritesNothing(t *testing.T) {
	s, file := newService(t, garden+"- [✓] own mark\n")
	var conflict *ConflictError
	for name, err := range map[string]error{
		"another line":   s.Tick(t.Context(), "garden.md", 13, "Dig", true),
		"another text":   s.Tick(t.Context(), "garden.md", 14, "Digs", true),
		"dropped":        s.Tick(t.Context(), "garden.md", 27, "Gravel", true),
		"in code":        s.Tick(t.Context(), "garden.md", 23, "code", true),
		"a mark of ours": s.Tick(t.Context(), "garden.md", 34, "own mark", true),
	} {
		if !errors.As(err, &conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []string{"../garden.md", "/etc/passwd", "other.md", "gone.md"} {
		if err := s.Tick(t.Context(), p, 1, "x", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if got, _ := os.ReadFile(file); string(got) != garden+"- [✓] own mark\n" {
		t.Errorf("%q", got)
	}
	s.config.Dir = ""
	if err := s.Tick(t.Context(), "garden.md", 14, "Dig", true); err == nil || s.Editable() {
		t.Error("the handbook was changed")
	}
}

func TestALinkIsNotReplacedByAFile(t *testing.T) {
	s, file := newService(t, garden)
	if err := errors.Join(os.Rename(file, filepath.Join(filepath.Dir(file), "real.md")), os.Symlink("real.md", file)); err != nil {
		t.Fatal(err)
	}
	if err := s.Tick(t.Context(), "garden.md", 14, "Dig", true); err == nil || !strings.Contains(err.Error(), "it is a link") {
		t.Error(err)
	}
}

func TestEachDaysNumbersAreKept(t *testing.T) {
	day := time.Now().Format(time.DateOnly)
	s, _ := newService(t, garden)
	for range 2 {
		if _, err := s.Board(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tick(t.Context(), "garden.md", 14, "Dig", true); err != nil {
		t.Fatal(err)
	}
	b, err := s.Board(t.Context())
	if err != nil || len(b.Rows) != 2 {
		t.Fatalf("%+v, %v", b, err)
	}
	up, _, err := s.History(t.Context(), "garden.md", time.Now().AddDate(0, 0, -1))
	days := up.Days
	if time.Now().Format(time.DateOnly) != day {
		t.Skip("midnight came meanwhile")
	}
	if err != nil || len(days) != 1 || days[0].Done != 3 || days[0].Total != 4 {
		t.Errorf("%+v, %v", days, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(garden))
	f.Add([]byte("- [ ] a\n\t- [x] b\n---\nafter: [[x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := Parse("a.md", b)
		last := -1
		for _, phase := range p.Phases {
			for _, task := range phase.Tasks {
				if task.mark <= last || task.mark >= len(b) || b[task.mark-1] != '[' {
					t.Fatalf("mark %d of %q", task.mark, b)
				}
				last = task.mark
			}
		}
		Lay([]Project{p, Parse("b.md", b)})
	})
}
