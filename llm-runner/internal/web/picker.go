package web

import (
	"crypto/rand"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// picker is the choice of a model, and of project mode.
type picker struct {
	Default string // what answers when nothing is chosen, in words; "" nothing does
	Groups  []modelGroup
	Chosen  string
	Missing bool // Chosen is not among the groups: the table has changed since
	Project string
	InProj  bool

	HasPlans  bool // research may show its plan first
	PlanFirst bool

	HasTools bool // there are some
	Tools    bool // they were switched on last

	HasMemory bool // something may be remembered
	Memory    bool // it was switched on last, or nothing was asked yet
}

// modelGroup is the models of one provider.
type modelGroup struct {
	Provider string
	Cloud    bool
	Models   []modelChoice
}

type modelChoice struct {
	Name   string // as it is asked for
	Label  string // as it is shown
	Model  string // as the provider calls it
	Chosen bool
}

func (s *Site) picker(chosen string, project bool) picker {
	t := s.Router.Table()
	p := picker{Chosen: chosen, Project: t.Project, InProj: project, Groups: s.models(), Missing: chosen != ""}
	if t.Default.Model != "" {
		p.Default = llm.On(t.Default.Model, t.Default.Provider)
	}
	for _, g := range p.Groups {
		for i := range g.Models {
			if g.Models[i].Name == chosen {
				g.Models[i].Chosen, p.Missing = true, false
			}
		}
	}
	return p
}

// models returns what can be asked for and chats, by provider: the rows of the route table first, then what each provider
// has besides.
func (s *Site) models() []modelGroup {
	var all []modelGroup
	at := map[string]int{}
	for _, m := range s.Router.Listing().Models {
		if m.Embeds {
			continue
		}
		provider := m.Provider
		if m.Requires != "" {
			provider = m.Requires
		}
		i, ok := at[provider]
		if !ok {
			i = len(all)
			at[provider] = i
			all = append(all, modelGroup{Provider: provider, Cloud: m.Cloud})
		}
		label := m.Name
		if !m.Row {
			label = m.Model
		}
		all[i].Models = append(all[i].Models, modelChoice{Name: m.Name, Label: label, Model: m.Model})
	}
	return all
}

// newKey returns a key that makes sending one form idempotent.
func newKey() string { return strings.ToLower(rand.Text()) }
