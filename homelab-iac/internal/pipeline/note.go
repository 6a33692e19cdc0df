package pipeline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/plan"
)

// A Summary is a plan as people read it: addresses, actions and names of attributes. There is no value in it.
type Summary struct {
	Plan     plan.Plan
	Findings []plan.Finding
	Cost     plan.Cost
	Currency string // of Cost
	AsOf     string // how old the prices are
	Commit   string
	Pipeline string // its page; "" none
	Made     time.Time
	State    string // prod
}

// most is how many lines a list in the note has: more than that nobody reads, and the counts are above.
const most = 400

// Report is what GitLab's widget for Terraform reads (docs.gitlab.com/user/infrastructure/iac/mr_integration): three counts.
func Report(p plan.Plan) []byte {
	n := p.Counts()
	text, err := json.Marshal(map[string]int{
		"create": n[plan.Create] + n[plan.Replace], "update": n[plan.Update], "delete": n[plan.Destroy] + n[plan.Replace] + n[plan.Forget],
	})
	if err != nil {
		return []byte("{}")
	}
	return append(text, '\n')
}

// Headline is the plan in one line.
func (s Summary) Headline() string {
	if s.Plan.Empty() {
		return "Nothing changes."
	}
	counts := s.Plan.Counts()
	var parts []string
	for _, k := range []string{plan.Destroy, plan.Replace, plan.Forget, plan.Update, plan.Create, ""} {
		if n := counts[k]; n > 0 {
			word := k
			if k == "" {
				word = "do something unknown to"
			}
			parts = append(parts, fmt.Sprintf("%s %d", word, n))
		}
	}
	moved, taken := 0, 0
	for _, r := range s.Plan.Resources {
		if r.Previous != "" {
			moved++
		}
		if r.Imported {
			taken++
		}
	}
	if moved > 0 {
		parts = append(parts, fmt.Sprintf("move %d", moved))
	}
	if taken > 0 {
		parts = append(parts, fmt.Sprintf("take over %d", taken))
	}
	if len(parts) == 0 {
		parts = []string{"change outputs"}
	}
	text := strings.Join(parts, ", ")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// Money is what changes in what is paid, in one line; "" where nothing that is rented changes.
func (s Summary) Money() string {
	var parts []string
	if s.Cost.Monthly != 0 {
		parts = append(parts, fmt.Sprintf("%+.2f %s a month (prices of %s)", s.Cost.Monthly, s.Currency, s.AsOf))
	}
	if len(s.Cost.Unknown) > 0 {
		parts = append(parts, "without a known price: "+codes(s.Cost.Unknown))
	}
	if len(s.Cost.Usage) > 0 {
		parts = append(parts, "paid by use: "+codes(s.Cost.Usage))
	}
	return strings.Join(parts, "; ")
}

// Text is the summary for a terminal or a job's log.
func (s Summary) Text() string {
	var b strings.Builder
	for _, f := range s.Findings {
		fmt.Fprintf(&b, "RISK %s %s: %s; %s\n", f.Rule, f.Address, f.What, f.Cure)
	}
	fmt.Fprintln(&b, s.Headline())
	if m := s.Money(); m != "" {
		fmt.Fprintln(&b, "Cost: "+strings.ReplaceAll(m, "`", ""))
	}
	for _, r := range s.changes() {
		fmt.Fprintln(&b, "  "+strings.ReplaceAll(line(r), "`", ""))
	}
	return b.String()
}

// Note is the summary as Markdown for a merge request: risks first, then counts and cost, the whole list folded.
func (s Summary) Note() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Terraform plan: %s\n\n", inline(s.State))
	if len(s.Findings) > 0 {
		fmt.Fprintf(&b, "**%d of these changes can lose something. They are refused unless a precheck token covers them.**\n\n", len(s.Findings))
		for i, f := range s.Findings {
			if i == most {
				fmt.Fprintf(&b, "* ... and %d more\n", len(s.Findings)-most)
				break
			}
			fmt.Fprintf(&b, "* **%s** %s: %s. %s.\n", f.Rule, code(f.Address), sentence(f.What), sentence(f.Cure))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s\n\n", s.Headline())
	if m := s.Money(); m != "" {
		fmt.Fprintf(&b, "Cost: %s\n\n", m)
	}
	if changes := s.changes(); len(changes) > 0 {
		fmt.Fprintf(&b, "<details><summary>What happens to %s</summary>\n\n", count(len(changes), "resource"))
		for i, r := range changes {
			if i == most {
				fmt.Fprintf(&b, "* ... and %d more\n", len(changes)-most)
				break
			}
			fmt.Fprintf(&b, "* %s\n", line(r))
		}
		b.WriteString("\n</details>\n\n")
	}
	if drift := s.drift(); len(drift) > 0 {
		fmt.Fprintf(&b, "<details><summary>Changed by somebody else since the last time: %s</summary>\n\n", count(len(drift), "resource"))
		for i, r := range drift {
			if i == most {
				break
			}
			fmt.Fprintf(&b, "* %s\n", line(r))
		}
		b.WriteString("\n</details>\n\n")
	}
	fmt.Fprintf(&b, "Commit %s, planned %s", code(s.Commit), s.Made.UTC().Format("2006-01-02 15:04:05 UTC"))
	if s.Pipeline != "" {
		fmt.Fprintf(&b, " in [this pipeline](%s)", s.Pipeline)
	}
	b.WriteString(". Values are never shown here; terraform plan on your own machine shows them.\n")
	return b.String()
}

// order is how much a kind of change deserves to be read first.
var order = []string{plan.Destroy, plan.Replace, plan.Forget, "", plan.Update, plan.Create}

// changes are the resources to which something happens, the most dangerous kinds first.
func (s Summary) changes() []plan.Resource {
	var out []plan.Resource
	for _, r := range s.Plan.Resources {
		if kind := r.Kind(); r.Mode == "managed" && (kind != plan.Same || r.Previous != "" || r.Imported) && kind != plan.Look {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b plan.Resource) int { return slices.Index(order, a.Kind()) - slices.Index(order, b.Kind()) })
	return out
}

func (s Summary) drift() []plan.Resource {
	return slices.DeleteFunc(slices.Clone(s.Plan.Drift), func(r plan.Resource) bool { return r.Kind() == plan.Same || r.Mode != "managed" })
}

// line is one resource: what happens to it and which attributes change.
func line(r plan.Resource) string {
	kind := r.Kind()
	if kind == "" {
		kind = "unknown (" + strings.Join(r.Actions, ", ") + ")"
	}
	text := kind + " " + code(r.Address)
	if r.Previous != "" {
		text += " (was " + code(r.Previous) + ")"
	}
	if r.Imported {
		text += " (taken over)"
	}
	if r.Deposed {
		text += " (what a replacement left)"
	}
	if r.PutOff != "" {
		text += " (put off: " + inline(r.PutOff) + ")"
	}
	if kind == plan.Update || kind == plan.Replace {
		var names []string
		seen := map[string]bool{}
		for _, a := range r.Changed {
			if name := a.Path; !seen[name] && len(names) < 40 {
				seen[name] = true
				names = append(names, code(name))
			}
		}
		if len(names) > 0 {
			text += ": " + strings.Join(names, ", ")
		}
		if len(r.Because) > 0 {
			text += "; made anew because of " + codes(r.Because)
		}
	}
	return text
}

func codes(all []string) string {
	out := make([]string, 0, len(all))
	for _, a := range all[:min(len(all), 20)] {
		out = append(out, code(a))
	}
	if len(all) > 20 {
		out = append(out, fmt.Sprintf("and %d more", len(all)-20))
	}
	return strings.Join(out, ", ")
}

// code is a name in a code span. Names come from the configuration of whoever opened the merge request: they must not end the span,
// mention anybody or start one of GitLab's quick actions.
func code(name string) string {
	return "`" + strings.ReplaceAll(inline(name), "`", "'") + "`"
}

// inline is a text on one line.
func inline(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return text
}

// sentence is a text of our own between others, in which names may stand: nothing in it is Markdown, HTML or a mention.
func sentence(text string) string {
	return strings.NewReplacer("<", "&lt;", "@", "@\u200b", "*", `\*`, "_", `\_`, "[", `\[`, "`", "'").Replace(inline(text))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
