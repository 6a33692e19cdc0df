package progress

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Board is all projects, laid out by phase.
type Board struct {
	Rows   []Row   `json:"phases"` // of a project one after the other, projects by title
	Ticks  int     `json:"ticks"`  // the length of the longest way through all phases
	Faults []Fault `json:"faults"`
	Ups    []Up    `json:"ups,omitempty"` // as Service.Ups has them; Lay makes none
}

// A Row is one phase in the schedule. Time is counted in phases: one takes a tick, and begins when all that it waits for have ended.
type Row struct {
	Project  string    `json:"project"` // its title
	Path     string    `json:"path"`
	Phase    Phase     `json:"phase"`
	Done     int       `json:"done"`
	Total    int       `json:"total"`
	State    State     `json:"state"`
	Tick     int       `json:"tick"`     // 0-based: the earliest
	Critical bool      `json:"critical"` // later, and the whole takes longer
	After    []Handoff `json:"after"`
}

// A Handoff is a phase that another one waits for.
type Handoff struct {
	Row      int    `json:"row"`
	Project  string `json:"project"`
	Phase    string `json:"phase"`
	Done     bool   `json:"done"`
	Critical bool   `json:"critical"` // both are, and no time lies between them
	Crosses  bool   `json:"crosses"`  // from one project to another
	Strands  bool   `json:"strands"`  // or from one strand of a project to another: see strand
}

// A State says where a phase stands.
type State string

const (
	Done    State = "done"    // it has tasks, and all are done
	Open    State = "open"    // nothing is in its way
	Waiting State = "waiting" // for a phase that is not done
)

// A Fault is what a project's note gets wrong, with the cure.
type Fault struct {
	Path string `json:"path"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// Lay lays projects out. A link that leads nowhere, or in a circle, is a fault and holds nothing up.
func Lay(projects []Project) Board {
	projects = slices.Clone(projects)
	slices.SortFunc(projects, func(a, b Project) int { return cmp.Or(cmp.Compare(a.Title, b.Title), cmp.Compare(a.Path, b.Path)) })
	b := Board{Rows: []Row{}, Faults: []Fault{}}
	first := make([]int, len(projects)+1) // of each project its first row
	for i, p := range projects {
		first[i] = len(b.Rows)
		for _, phase := range p.Phases {
			r := Row{Project: p.Title, Path: p.Path, Phase: phase, After: []Handoff{}}
			if r.Phase.Tasks == nil {
				r.Phase.Tasks = []Task{}
			}
			r.Done, r.Total = phase.Count()
			b.Rows = append(b.Rows, r)
		}
	}
	first[len(projects)] = len(b.Rows)
	for i := range projects {
		for row := first[i]; row < first[i+1]; row++ {
			for _, link := range b.Rows[row].Phase.After {
				to, why := target(projects, first, i, link)
				if why != "" {
					b.fault(row, fmt.Sprintf("after: [[%s]] %s", link, why))
				}
				for _, t := range to {
					if t != row {
						b.Rows[row].After = append(b.Rows[row].After, Handoff{Row: t})
					}
				}
			}
		}
	}
	b.schedule()
	return b
}

func (b *Board) fault(row int, text string) {
	r := &b.Rows[row]
	b.Faults = append(b.Faults, Fault{Path: r.Path, Line: max(r.Phase.Line, 1), Text: text})
}

// target finds the rows that a link of project i names.
func target(projects []Project, first []int, i int, link string) (rows []int, why string) {
	note, phase, named := strings.Cut(link, "#")
	at := i
	if note != "" {
		at = -1
		for k, p := range projects {
			name := strings.TrimSuffix(p.Path, path.Ext(p.Path))
			if !strings.EqualFold(note, name) && !strings.EqualFold(note, path.Base(name)) && !strings.EqualFold(note, p.Path) && !strings.EqualFold(note, p.Title) {
				continue
			}
			if at >= 0 {
				return nil, fmt.Sprintf("could be %s or %s: write the path of the one that is meant", projects[at].Path, p.Path)
			}
			at = k
		}
		if at < 0 {
			return nil, "leads to no project: a project is a note with `type: project` in its frontmatter"
		}
	}
	if !named {
		for row := first[at]; row < first[at+1]; row++ {
			rows = append(rows, row)
		}
		return rows, ""
	}
	var names []string
	for k, p := range projects[at].Phases {
		if strings.EqualFold(strings.TrimSpace(p.Name), strings.TrimSpace(phase)) {
			return []int{first[at] + k}, ""
		}
		names = append(names, p.Name)
	}
	return nil, fmt.Sprintf("leads to no phase of %s: it has %s", projects[at].Title, strings.Join(names, ", "))
}

// schedule sets ticks, states and what is critical.
func (b *Board) schedule() {
	const fresh, open, closed = 0, 1, 2
	seen, height := make([]int, len(b.Rows)), make([]int, len(b.Rows))
	var walk func(row int)
	walk = func(row int) {
		r := &b.Rows[row]
		seen[row] = open
		r.After = slices.DeleteFunc(r.After, func(h Handoff) bool {
			if seen[h.Row] == open {
				b.fault(row, fmt.Sprintf("after: %s › %s, which waits for this one itself: take one of the two links away", b.Rows[h.Row].Project, b.Rows[h.Row].Phase.Name))
				return true
			}
			if seen[h.Row] == fresh {
				walk(h.Row)
			}
			r.Tick = max(r.Tick, b.Rows[h.Row].Tick+1)
			return false
		})
		seen[row] = closed
	}
	for row := range b.Rows {
		if seen[row] == fresh {
			walk(row)
		}
	}
	order := make([]int, len(b.Rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return b.Rows[y].Tick - b.Rows[x].Tick })
	for _, row := range order { // the last first
		b.Ticks = max(b.Ticks, b.Rows[row].Tick+1)
		for _, h := range b.Rows[row].After {
			height[h.Row] = max(height[h.Row], height[row]+1)
		}
	}
	for row := range b.Rows {
		r := &b.Rows[row]
		r.Critical = b.Ticks > 1 && r.Tick+height[row]+1 == b.Ticks
		r.State = Open
		if r.Total > 0 && r.Done == r.Total {
			r.State = Done
		}
	}
	for row := range b.Rows {
		r := &b.Rows[row]
		for i := range r.After {
			h := &r.After[i]
			from := &b.Rows[h.Row]
			h.Project, h.Phase, h.Done = from.Project, from.Phase.Name, from.State == Done
			h.Critical = r.Critical && from.Critical && from.Tick+1 == r.Tick
			h.Crosses = from.Path != r.Path
			a, z := strand(from.Phase.Name), strand(r.Phase.Name)
			h.Strands = h.Crosses || a != "" && z != "" && a != z
			if !h.Done && r.State == Open {
				r.State = Waiting
			}
		}
	}
}

var numbered = regexp.MustCompile(`^(.+?)\s+[A-Z]?\d+(?:[:.)]|$)`)

// strand is what stands before a phase's number: "Runner" of "Runner P4: tools"; "" where it has none.
func strand(name string) string {
	if m := numbered.FindStringSubmatch(name); m != nil {
		return strings.ToLower(m[1])
	}
	return ""
}

// Count is how many tasks of a project's note count, and how many of them are done.
func (b *Board) Count(path string) (done, total int) {
	for _, r := range b.Rows {
		if r.Path == path {
			done, total = done+r.Done, total+r.Total
		}
	}
	return done, total
}

// Only returns the projects whose title has part in it, lower case; "" all. Handoffs keep their names, though the rows that they lead to
// may be gone: Row is then -1.
func (b *Board) Only(part string) Board {
	if part == "" {
		return *b
	}
	at := map[int]int{}
	out := Board{Rows: []Row{}, Ticks: b.Ticks, Faults: []Fault{}}
	paths := map[string]bool{}
	for i, r := range b.Rows {
		if strings.Contains(strings.ToLower(r.Project), part) {
			at[i], paths[r.Path] = len(out.Rows), true
			r.After = slices.Clone(r.After)
			out.Rows = append(out.Rows, r)
		}
	}
	for i := range out.Rows {
		for k := range out.Rows[i].After {
			h := &out.Rows[i].After[k]
			row, ok := at[h.Row]
			if !ok {
				row = -1
			}
			h.Row = row
		}
	}
	for _, f := range b.Faults {
		if paths[f.Path] {
			out.Faults = append(out.Faults, f)
		}
	}
	for _, up := range b.Ups {
		if paths[up.Path] {
			out.Ups = append(out.Ups, up)
		}
	}
	return out
}
