package route

// A Listing is every name that can be asked for, and who would answer.
type Listing struct {
	Models []Listed `json:"models"`
}

// Listed is one row of the table as it stands now.
type Listed struct {
	Name     string `json:"name"`
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Fallback string `json:"fallback,omitempty"`
	Requires string `json:"requires,omitempty"`
	Default  bool   `json:"default,omitempty"` // answers names that the table does not have
	Hold     *Hold  `json:"hold,omitempty"`    // why nobody can answer now
}

// Listing returns the rows of the table by name, the default first.
func (r *Router) Listing() Listing {
	t := r.table.Load()
	list := Listing{Models: []Listed{}}
	found := false
	for _, name := range t.names() {
		e := t.Models[name]
		row := Listed{Name: name, Provider: e.Provider, Model: e.Model, Fallback: e.Fallback, Requires: e.Requires,
			Hold: r.Decide(Ask{Model: name}).Hold, Default: !found && e.Target == t.Default}
		found = found || row.Default
		list.Models = append(list.Models, row)
		if row.Default {
			copy(list.Models[1:], list.Models[:len(list.Models)-1])
			list.Models[0] = row
		}
	}
	if d := t.Default; !found && d != (Target{}) {
		row := Listed{Name: d.String(), Provider: d.Provider, Model: d.Model, Default: true, Hold: r.Decide(Ask{}).Hold}
		list.Models = append([]Listed{row}, list.Models...)
	}
	return list
}
