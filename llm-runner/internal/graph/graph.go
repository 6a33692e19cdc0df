// Package graph runs small nodes over one typed state, each a durable step: after a crash a run goes on at the next node, and no
// answer that was paid for is asked for again. A graph is checked when it is built; a run can be watched, replayed, forked from any step with an
// edited state, cancelled, and paused for a person.
package graph

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// End is where an edge leads that ends the run.
const End = ""

// A Node is one step of a graph over the state S, which is kept as JSON: only exported fields survive.
type Node[S any] struct {
	Name string
	Says string // what it does, for people: "looks in the notes"
	// Run changes the state. It may run again when the process dies in it, so whatever costs or shows goes through the Step. An
	// error ends the run, or this try of it where the error passes (a *llm.BusyError, the end of ctx).
	Run func(s *Step, state *S) error
	To  []Edge[S] // the first whose When holds is taken
}

// An Edge leads from a node to another one, or to End.
type Edge[S any] struct {
	To   string
	When func(state *S) bool // nil: always
	Most int                 // how often a run may take it; 0: any number. Each loop needs an edge that has a bound
}

// A Graph is nodes that have been checked. Make one with New.
type Graph[S any] struct {
	name  string
	nodes []Node[S]
	at    map[string]int
	last  string // where a run goes on whose budget is used up
}

// New returns the graph of nodes, the first of which begins. last is the node that makes the best of what there is when a budget is
// used up; it must lead to End. All faults are told at once.
func New[S any](name, last string, nodes ...Node[S]) (*Graph[S], error) {
	g := &Graph[S]{name: name, nodes: nodes, at: map[string]int{}, last: last}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("graph "+name+": "+format, args...))
	}
	for i, n := range nodes {
		if _, twice := g.at[n.Name]; twice || n.Name == End {
			fault("node %d: the name %q is empty or taken", i, n.Name)
			continue
		}
		if n.Run == nil {
			fault("node %s does nothing", n.Name)
		}
		g.at[n.Name] = i
	}
	for _, n := range nodes {
		for _, e := range n.To {
			if _, known := g.at[e.To]; !known && e.To != End {
				fault("node %s leads to %q, which is no node", n.Name, e.To)
			}
		}
		if k := len(n.To) - 1; k < 0 || n.To[k].When != nil || n.To[k].Most > 0 {
			fault("node %s: its last edge must always hold, so that there is a way on", n.Name)
		}
	}
	if len(nodes) == 0 {
		fault("it has no node")
	} else if _, known := g.at[last]; !known {
		fault("there is no node %q for when a budget is used up", last)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	from := g.reach(nodes[0].Name, func(Edge[S]) bool { return true })
	for _, n := range nodes {
		if !from[n.Name] && n.Name != last {
			fault("node %s cannot be reached", n.Name)
		}
		if !g.reach(n.Name, func(Edge[S]) bool { return true })[End] {
			fault("node %s never comes to an end", n.Name)
		}
		if loop := g.reach(n.Name, func(e Edge[S]) bool { return e.Most == 0 }); g.returns(n, loop) {
			fault("node %s comes back to itself without an edge that has a bound (Most)", n.Name)
		}
	}
	back := func(e Edge[S]) bool { return e.To == nodes[0].Name }
	for name := range g.reach(last, func(Edge[S]) bool { return true }) {
		if name == End || !slices.ContainsFunc(g.nodes[g.at[name]].To, back) {
			continue
		}
		fault("node %s must lead to the end, not back to the beginning", last)
	}
	return g, errors.Join(faults...)
}

// reach returns where the edges that count lead from a node, however many.
func (g *Graph[S]) reach(from string, counts func(Edge[S]) bool) map[string]bool {
	seen, next := map[string]bool{from: true}, []string{from}
	for len(next) > 0 {
		n := g.nodes[g.at[next[0]]]
		next = next[1:]
		for _, e := range n.To {
			if counts(e) && !seen[e.To] {
				if seen[e.To] = true; e.To != End {
					next = append(next, e.To)
				}
			}
		}
	}
	return seen
}

// returns says that an edge without a bound leads from one of the nodes that n reaches back to n.
func (g *Graph[S]) returns(n Node[S], reached map[string]bool) bool {
	for _, m := range g.nodes {
		if reached[m.Name] && slices.ContainsFunc(m.To, func(e Edge[S]) bool { return e.Most == 0 && e.To == n.Name }) {
			return true
		}
	}
	return false
}

// A Shape is a graph as it is drawn.
type Shape struct {
	Name  string      `json:"name"`
	Nodes []ShapeNode `json:"nodes"`
}

// A ShapeNode is a node with where it may lead to.
type ShapeNode struct {
	Name string   `json:"name"`
	Says string   `json:"says"`
	To   []string `json:"to"` // "" is the end
}

// Along is the part of a graph that a run went through, with what comes next: of a graph of two ways the one that was gone.
func (s Shape) Along(steps []StepRow) Shape {
	seen := map[string]bool{}
	for _, x := range steps {
		seen[x.Node], seen[x.Next] = true, true
	}
	part := Shape{Name: s.Name}
	for _, n := range s.Nodes {
		if seen[n.Name] {
			n.To = slices.DeleteFunc(slices.Clone(n.To), func(to string) bool { return to != End && !seen[to] })
			part.Nodes = append(part.Nodes, n)
		}
	}
	return part
}

// Shape returns how g is drawn.
func (g *Graph[S]) Shape() Shape {
	s := Shape{Name: g.name}
	for _, n := range g.nodes {
		x := ShapeNode{Name: n.Name, Says: n.Says}
		for _, e := range n.To {
			if !slices.Contains(x.To, e.To) {
				x.To = append(x.To, e.To)
			}
		}
		s.Nodes = append(s.Nodes, x)
	}
	return s
}

// String draws g with one line for each node.
func (g *Graph[S]) String() string {
	var b strings.Builder
	for _, n := range g.Shape().Nodes {
		to := make([]string, len(n.To))
		for i, x := range n.To {
			if to[i] = x; x == End {
				to[i] = "end"
			}
		}
		fmt.Fprintf(&b, "%s -> %s\n", n.Name, strings.Join(to, " | "))
	}
	return b.String()
}

// next returns where the run goes on after a node. taken counts the edges that it took before, as "from>to".
func (g *Graph[S]) next(node string, state *S, taken map[string]int) (to string) {
	n := g.nodes[g.at[node]]
	for _, e := range n.To {
		if (e.Most == 0 || taken[way(node, e.To)] < e.Most) && (e.When == nil || e.When(state)) {
			return e.To
		}
	}
	return End // not reached: New saw to it
}

func way(from, to string) string { return from + ">" + to }
