package route

// A Listing is every name that can be asked for, and who would answer.
type Listing struct {
	Models []Listed `json:"models"`
}

// Listed is one name as it stands now: a row of the table, or a model that a provider has besides, which is asked for as
// provider/model.
type Listed struct {
	Name     string `json:"name"`
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Row      bool   `json:"row"` // of the table
	Cloud    bool   `json:"cloud"`
	Embeds   bool   `json:"embeds,omitempty"` // makes vectors, does not chat
	Fallback string `json:"fallback,omitempty"`
	Requires string `json:"requires,omitempty"`
	Default  bool   `json:"default,omitempty"` // answers names that the table does not have
	Hold     *Hold  `json:"hold,omitempty"`    // why nobody can answer now
}

// Listing returns the default, then the other rows by name, then what each provider has besides.
func (r *Router) Listing() Listing {
	t := r.table.Load()
	embeds, tabled := map[Target]bool{}, map[Target]bool{}
	reports := r.Reports()
	for _, p := range reports {
		for _, m := range p.Models {
			embeds[Target{p.Name, m.Name}] = m.Embeds
		}
	}
	var first, rows, rest []Listed
	add := func(to *[]Listed, name string, row bool) *Listed {
		d := r.Decide(Ask{Model: name})
		if len(d.Targets) == 0 {
			return nil
		}
		x := Listed{Name: name, Provider: d.Targets[0].Provider, Model: d.Targets[0].Model, Row: row, Hold: d.Hold}
		if e, ok := t.Models[name]; ok { // while its fallback answers, the row is still the row's
			x.Provider, x.Model, x.Fallback, x.Requires = e.Provider, e.Model, e.Fallback, e.Requires
		}
		x.Cloud, x.Embeds = t.Cloud[x.Provider], embeds[Target{x.Provider, x.Model}]
		tabled[Target{x.Provider, x.Model}] = true
		*to = append(*to, x)
		return &(*to)[len(*to)-1]
	}
	for _, name := range t.names() {
		if t.Models[name].Target == t.Default && first == nil {
			add(&first, name, true).Default = true
		} else {
			add(&rows, name, true)
		}
	}
	if first == nil && t.Default != (Target{}) {
		if x := add(&first, t.Default.String(), false); x != nil {
			x.Default = true
		}
	}
	for _, p := range reports {
		for _, m := range p.Models {
			if target := (Target{p.Name, m.Name}); !tabled[target] {
				add(&rest, target.String(), false)
			}
		}
	}
	return Listing{append(append(append([]Listed{}, first...), rows...), rest...)}
}
