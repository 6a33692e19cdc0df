package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Report is an inquiry as a Markdown note.
type Report struct {
	Title string
	Ended time.Time
	Front string // lines of frontmatter, without the dashes around them
	Body  string // what stands below
}

// Note is the whole note of a report that belongs to no job; the library leaves it out (generated: true), so that no answer rests on an answer.
func (r Report) Note() []byte {
	return []byte(llm.Inert("---\ngenerated: true\ntype: research\n"+r.Front+"---\n\n"+r.Body, ""))
}

// ErrNoReport says that a run has none: it has not come to an answer, or went straight to it.
var ErrNoReport = errors.New("there is no report of this run")

// Report returns the report of a run, ErrNoReport where it has not ended well.
func (q *Inquiries) Report(ctx context.Context, id int64) (Report, error) {
	run, err := q.Store.Run(ctx, id)
	if err != nil {
		return Report{}, err
	}
	if run.Status != Done {
		return Report{}, fmt.Errorf("run %d is %s: %w", id, run.Status, ErrNoReport)
	}
	steps, err := q.Store.Steps(ctx, id)
	if err != nil {
		return Report{}, err
	}
	calls, err := q.Store.Calls(ctx, id)
	if err != nil {
		return Report{}, err
	}
	var x Inquiry
	if len(steps) == 0 {
		return Report{}, ErrNoReport
	}
	if err := json.Unmarshal(steps[len(steps)-1].State, &x); err != nil {
		return Report{}, fmt.Errorf("read the state of run %d: %w", id, err)
	}
	if x.straight() {
		return Report{}, fmt.Errorf("run %d went the straight way: %w", id, ErrNoReport)
	}
	return report(run, x, calls), nil
}

// report writes an inquiry down. It is pure.
func report(run RunRow, x Inquiry, calls []CallRow) Report {
	r := Report{Title: x.Asked, Ended: run.Ended}
	var models []string
	for _, c := range calls {
		if name := c.Provider + "/" + c.Model; c.Model != "" && !slices.Contains(models, name) {
			models = append(models, name)
		}
	}
	stand, struck := 0, map[string]int{}
	for _, c := range x.Claims {
		switch {
		case c.Struck != "":
			struck[c.Struck]++
		case len(c.Sources) > 0:
			stand++
		}
	}
	var front, b strings.Builder
	entry := func(key, format string, args ...any) { fmt.Fprintf(&front, key+": "+format+"\n", args...) }
	entry("question", "%s", quote(x.Asked))
	entry("date", "%s", run.Ended.Local().Format(time.RFC3339))
	entry("model", "%s", quote(strings.Join(models, ", ")))
	entry("cost_usd", "%d.%06d", run.Spent.MicroUSD/1e6, run.Spent.MicroUSD%1e6)
	entry("tokens", "%d", run.Spent.Tokens)
	entry("seconds", "%.1f", run.Spent.Time.Seconds())
	entry("statements", "%d", stand)
	entry("struck", "%d", sum(struck))
	front.WriteString("sources:")
	var listed []string
	for _, e := range x.Evidence {
		if name := named(e); !slices.Contains(listed, name) {
			listed = append(listed, name)
			front.WriteString("\n  - " + quote(name))
		}
	}
	if len(listed) == 0 {
		front.WriteString(" []")
	}
	front.WriteString("\n")

	b.WriteString("# " + oneLine(x.Asked) + "\n\n" + strings.TrimSpace(x.Answer) + "\n")
	if len(x.Evidence) > 0 {
		b.WriteString("\n## Sources\n")
	}
	for i, e := range x.Evidence {
		fmt.Fprintf(&b, "\n%d. %s, line%s %s, bytes %d to %d%s\n\n%s\n", i+1, linked(e), map[bool]string{true: "s"}[e.EndLine > e.Line], lines(e.Citation), e.Start, e.End, dates(e), fenced(e.Quote))
	}
	b.WriteString("\n## What could not be established\n\n")
	for _, o := range x.Open {
		b.WriteString("* " + oneLine(o) + "\n")
	}
	for _, why := range []string{saysNoSuch, notItsWords, notItsNumber, notItsAddress, noSuchSource, citesNothing, hasChanged, notSeen, uncheckable, unchecked} {
		if n := struck[why]; n > 0 {
			fmt.Fprintf(&b, "* %s left out: %s\n", plural(n, "statement was", "statements were"), why)
		}
	}
	for _, remark := range x.Remarks {
		if strings.HasPrefix(remark, "The web could not") || strings.HasPrefix(remark, "This is as far") || strings.HasPrefix(remark, "Some of what") {
			b.WriteString("* " + remark + "\n")
		}
	}
	if len(x.Open) == 0 && len(struck) == 0 && run.Over == "" {
		b.WriteString("Nothing that was asked for is missing.\n")
	}
	if len(x.Dropped) > 0 {
		b.WriteString("\n## What was not read\n\n")
		for _, d := range x.Dropped {
			fmt.Fprintf(&b, "* `%s`: %s\n", strings.ReplaceAll(oneLine(d.Path), "`", "'"), oneLine(d.Why))
		}
	}
	fmt.Fprintf(&b, "\n## Cost and time\n\n%s in %s, %s to models, %d tokens, $%d.%06d", plural(run.Spent.Steps, "step", "steps"), run.Spent.Time.Round(100*time.Millisecond),
		plural(run.Spent.Calls, "question", "questions"), run.Spent.Tokens, run.Spent.MicroUSD/1e6, run.Spent.MicroUSD%1e6)
	if len(x.Searched) > 0 {
		searched := make([]string, len(x.Searched))
		for i, s := range x.Searched {
			searched[i] = oneLine(s)
		}
		b.WriteString(". Searched for: " + strings.Join(searched, "; "))
	}
	b.WriteString(".\n")
	r.Front, r.Body = front.String(), b.String()
	return r
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// named is how a source is called: its address, or its path.
func named(s Source) string {
	if s.URL != "" {
		return s.URL
	}
	return s.Path
}

// linked leads to a source: a link of the vault to a note, to a page its address.
func linked(s Source) string {
	switch {
	case s.Collection == "" && !strings.ContainsAny(s.Path, "[]#^|`<>\n"):
		return "[[" + strings.TrimSuffix(s.Path, ".md") + "]]"
	case (strings.HasPrefix(named(s), "https://") || strings.HasPrefix(named(s), "http://")) && !strings.ContainsAny(named(s), "<> \n"):
		return "[" + oneLine(cmp.Or(s.Title, named(s))) + "](<" + named(s) + ">)"
	}
	return "`" + strings.ReplaceAll(oneLine(s.Path), "`", "'") + "`"
}

func lines(c llm.Citation) string {
	if c.EndLine > c.Line {
		return fmt.Sprintf("%d to %d", c.Line, c.EndLine)
	}
	return strconv.Itoa(c.Line)
}

func dates(s Source) (text string) {
	if !s.Published.IsZero() {
		text += ", published " + s.Published.Format(time.DateOnly)
	}
	if !s.Dated.IsZero() {
		text += ", fetched " + s.Dated.UTC().Format("2006-01-02 15:04 UTC")
	}
	return text
}

// fenced is a quotation byte for byte, in a block in which nothing is read as markup: no picture of it is loaded, no link of it leads anywhere.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "text\n" + text + "\n" + fence
}

// quote writes a text as a YAML scalar in double quotes.
func quote(text string) string { return strconv.Quote(strings.ToValidUTF8(text, "\uFFFD")) }
