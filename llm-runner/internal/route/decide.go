// Package route decides which provider answers a request, watches who can, and is itself a Provider made of Providers.
package route

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
)

// A Target is a model on a provider.
type Target struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
}

func (t Target) String() string { return t.Provider + "/" + t.Model }

// A Table is the operator's route table. It is not changed once it is in use.
type Table struct {
	Default Target           // answers names that the table does not have
	Project string           // the provider that project mode insists on; "" none
	Models  map[string]Entry // by the name that callers use
	Cloud   map[string]bool  // by provider: whether it is a cloud API (every provider has a key)
}

// An Entry is one row of the table.
type Entry struct {
	Target
	Fallback string // the name of another row that may answer instead; "" none
	Requires string // the provider that must answer, whatever the caller says; "" none
	// Whole says that a stream goes out when its answer is whole, so that the fallback can still answer for one that breaks.
	Whole bool
}

// An Ask is what a caller wants of the router.
type Ask struct {
	Model    string // "" none named
	Project  bool   // project mode
	Requires string // a provider that must answer; "" any
	Embeds   bool   // it is for vectors, not for words
	// Cost is what the request is expected to use of rate limits; the zero value is one request of unknown size. It does
	// not change who answers.
	Cost quota.Cost
	// Wait is how long the caller waits for an answer to begin, as far as it is known; 0: not at all. It does not change who is decided on,
	// see Do.
	Wait time.Duration
}

// A Readiness says whether a target can answer now, and if not, why and until when (zero: nobody knows).
type Readiness struct {
	Ready  bool
	Kind   llm.Kind
	Reason string
	Until  time.Time
	// Dimension is the limit that is used up; "" where it is none, or not known which.
	Dimension string
}

// A Hold is why nobody can answer now. Until is nil where nobody knows.
type Hold struct {
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
	Kind   llm.Kind   `json:"-"`
	Target Target     `json:"-"` // that is waited for: where several are, the one that can answer first
	// Dimension is the limit that is used up; "" where it is none, or not known which.
	Dimension string `json:"dimension,omitempty"`
}

// A Decision says who answers, in the order in which they are tried, and why. With a Hold nobody can answer now and
// Targets are those that are waited for.
type Decision struct {
	Model   string   `json:"model"` // as it was asked for
	Targets []Target `json:"targets"`
	Rule    string   `json:"rule"`
	Why     string   `json:"why"`
	Hold    *Hold    `json:"hold,omitempty"`
	Whole   bool     `json:"whole,omitempty"` // the row has its streams go out when their answers are whole

	passed []Hold // why those of the row before and between Targets cannot answer now; where RuleFallback, the first is the row's own
}

// The rules of a Decision.
const (
	RuleDefault  = "default"  // the name is not in the table, or none was given
	RuleCloud    = "cloud"    // the table names a cloud API
	RuleRequires = "requires" // the row or the caller insists on a provider
	RuleProject  = "project"  // project mode insists on a provider
	RuleLocal    = "local"    // the table names a local machine
	RuleFallback = "fallback" // the row's own target cannot answer now; the fallback it names can
	RuleNamed    = "named"    // the caller wrote provider/model
)

// Decide is the whole decision tree, and nothing else decides:
//
//	name not in the table, or none given     -> the default
//	row of a cloud API                       -> that API, or hold
//	row of a local machine
//	    row or caller requires a provider    -> that provider, or hold
//	    project mode                         -> the project provider, or hold
//	    otherwise                            -> the row's machine, or hold
//
// Only where the row names a fallback does another row stand in for one that would hold; for a caller that insists on a
// provider, no other provider does. A caller that names no model but insists gets that provider: no wish is dropped in
// silence. ready must be a
// pure look-up; Decide calls it for the targets it considers.
func Decide(t *Table, ask Ask, ready func(Target) Readiness) Decision {
	d := Decision{Model: ask.Model}
	row, known := t.row(ask.Model)
	switch {
	case known:
		d.Whole = row.Whole
		d.Rule, d.Why, row.Target = t.pick(ask, row)
		if p := t.insists(ask); p != "" && !t.Cloud[row.Provider] && t.Models[row.Fallback].Provider != p {
			row.Fallback = "" // the caller's own wish outranks what the table would do instead
		}
	case ask.Model == "" && t.insists(ask) != "":
		p := t.insists(ask)
		d.Rule, d.Why = RuleRequires, fmt.Sprintf("no model named, and the caller requires %s", p)
		if ask.Requires == "" {
			d.Rule, d.Why = RuleProject, fmt.Sprintf("no model named, and project mode insists on %s", p)
		}
		row = Entry{Target: t.on(p, Target{})}
	default:
		if target, ok := t.named(ask.Model); ok {
			d.Rule, d.Why = RuleNamed, fmt.Sprintf("%s was asked for by provider and model", target)
			row = Entry{Target: target}
			break
		}
		d.Rule, d.Why = RuleDefault, fmt.Sprintf("%q is not in the route table, so the default answers", ask.Model)
		if ask.Model == "" {
			d.Why = "no model named, so the default answers"
		}
		if ask.Requires != "" || ask.Project {
			d.Why += " (project mode and requires count for rows of the table)"
		}
		row = Entry{Target: t.Default}
	}
	if ask.Project && t.Project == "" {
		d.Why += " (project mode changes nothing: routes.project names no provider)"
	}
	t.settle(&d, row, ready)
	return d
}

// row looks a name up. To Ollama "x" and "x:latest" are one name, so they are here.
func (t *Table) row(name string) (Entry, bool) {
	e, ok := t.Models[name]
	if short, latest := strings.CutSuffix(name, ":latest"); !ok && latest {
		e, ok = t.Models[short]
	}
	return e, ok
}

// pick chooses a known row's own target.
func (t *Table) pick(ask Ask, row Entry) (rule, why string, target Target) {
	switch p := t.insists(ask); {
	case t.Cloud[row.Provider]:
		why = fmt.Sprintf("%q is a model of the cloud provider %s", ask.Model, row.Provider)
		if p != "" {
			why += " (project mode and requires count for local machines)"
		}
		return RuleCloud, why, row.Target
	case row.Requires == ask.Model: // the notes: what the caller insists on is for the model that writes from them
		return RuleLocal, fmt.Sprintf("%q runs on %s", ask.Model, row.Provider), row.Target
	case row.Requires != "":
		return RuleRequires, fmt.Sprintf("%q requires %s", ask.Model, row.Requires), t.on(row.Requires, row.Target)
	case ask.Requires != "":
		return RuleRequires, fmt.Sprintf("the caller requires %s", p), t.on(p, row.Target)
	case p != "":
		return RuleProject, fmt.Sprintf("project mode insists on %s", p), t.on(p, row.Target)
	}
	return RuleLocal, fmt.Sprintf("%q runs on %s", ask.Model, row.Provider), row.Target
}

// insists returns the provider that the caller insists on, or "".
func (t *Table) insists(ask Ask) string {
	if ask.Requires != "" {
		return ask.Requires
	}
	if ask.Project {
		return t.Project
	}
	return ""
}

// on moves a target to another provider: to the model that the table knows there, since a machine rarely has the models
// of another. Of several rows the first by name counts; without any the model's name is kept.
func (t *Table) on(provider string, target Target) Target {
	if target.Provider == provider {
		return target
	}
	for _, name := range t.names() {
		if e := t.Models[name]; e.Provider == provider {
			return e.Target
		}
	}
	if t.Default.Provider == provider {
		return t.Default
	}
	return Target{provider, target.Model}
}

// named understands "provider/model" for providers that exist.
func (t *Table) named(name string) (Target, bool) {
	provider, model, ok := strings.Cut(name, "/")
	if !ok || model == "" {
		return Target{}, false
	}
	_, known := t.Cloud[provider]
	return Target{provider, model}, known
}

func (t *Table) names() []string {
	names := make([]string, 0, len(t.Models))
	for name := range t.Models {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// settle fills in the targets: the row's own and the fallbacks it names, as far as they are ready; all of them with a
// hold where none is.
func (t *Table) settle(d *Decision, row Entry, ready func(Target) Readiness) {
	var all, can []Target
	for seen := []string{d.Model}; ; {
		if row.Provider != "" && !slices.Contains(all, row.Target) {
			all = append(all, row.Target)
			if r := ready(row.Target); r.Ready {
				can = append(can, row.Target)
			} else {
				d.passed = append(d.passed, r.hold(row.Target))
			}
		}
		next := row.Fallback
		if next == "" || slices.Contains(seen, next) {
			break
		}
		seen = append(seen, next)
		row = t.Models[next]
	}
	switch {
	case len(all) == 0:
		d.Targets, d.Hold = []Target{}, &Hold{Kind: llm.Unavailable, Reason: "no provider is configured or found that could answer"}
	case len(can) == 0:
		d.Targets, d.Hold = all, soonest(d.passed)
		d.Why += "; " + d.Hold.Reason
	case can[0] != all[0]:
		d.Targets, d.Rule = can, RuleFallback
		d.Why += fmt.Sprintf("; %s, so its fallback %s answers", d.passed[0].Reason, can[0])
	default:
		d.Targets = can
	}
}

// hold is why a target cannot answer now.
func (r Readiness) hold(t Target) Hold {
	h := Hold{Reason: r.Reason, Kind: r.Kind, Target: t, Dimension: r.Dimension}
	if !r.Until.IsZero() {
		until := r.Until.UTC()
		h.Until = &until
	}
	return h
}

// soonest returns the hold that ends first; one whose end nobody knows counts as last. nil of none.
func soonest(all []Hold) (first *Hold) {
	for i := range all {
		if h := &all[i]; first == nil || h.Until != nil && (first.Until == nil || h.Until.Before(*first.Until)) {
			first = h
		}
	}
	return first
}
