package jobs

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/internal/strict"
	"home.arpa/lab/llm-runner/internal/llm"
)

// notePath is where a job's answer goes when the job does not say: <moment of its end>-<name>.md. It is the same whenever
// it is asked for, so that a note which was written before a crash is found again.
func (f *Folders) notePath(j *Job) string {
	name := j.Title
	if j.Dropped != "" {
		name = strings.TrimSuffix(j.Dropped, path.Ext(j.Dropped))
	}
	return path.Join(f.Outputs, j.Ended.Local().Format("20060102-150405")+"-"+plain(name)+".md")
}

// render writes a done job's answer as a note, with a link to the file that it came from (prompt; "" none). worked is how
// long models worked on it. A report brings frontmatter of its own and what stands in the place of the answer.
func render(j *Job, prompt string, worked time.Duration, front, body string) []byte {
	return []byte(llm.Inert(compose(j, prompt, worked, front, body), ""))
}

func compose(j *Job, prompt string, worked time.Duration, front, body string) string {
	var b strings.Builder
	b.WriteString("---\n" + owned(j.ID))
	entry := func(key, format string, args ...any) { fmt.Fprintf(&b, key+": "+format+"\n", args...) }
	entry("type", "%s", j.Type)
	entry("title", "%s", quote(j.Title))
	if front == "" { // a report knows its own
		entry("model", "%s", quote(j.Route.Model))
		entry("provider", "%s", quote(j.Route.Provider))
		entry("input_tokens", "%s", number(j.Usage.Input))
		entry("output_tokens", "%s", number(j.Usage.Output))
		entry("cost_usd", "%s", dollars(j.Cost))
		entry("duration", "%s", worked.Round(time.Millisecond))
	}
	entry("waited", "%s", j.Waited.Round(time.Millisecond))
	entry("rule", "%s", quote(j.Route.Rule))
	entry("why", "%s", quote(j.Route.Why))
	b.WriteString(j.created())
	if prompt != "" {
		entry("prompt", "%s", quote(link(prompt, "")))
	}
	b.WriteString(front + "---\n\n")
	if body != "" {
		b.WriteString(strings.TrimRight(body, "\n") + "\n")
		return b.String()
	}
	if j.Answer == "" && len(j.Response) > 0 { // calls of tools, say
		fmt.Fprintf(&b, "```json\n%s\n```\n", bytes.TrimSpace(j.Response))
	} else {
		b.WriteString(strings.TrimRight(llm.Still(j.Answer), "\n") + "\n")
	}
	switch j.Finish {
	case llm.FinishLength:
		b.WriteString("\n> The answer was cut off: the model reached its limit of tokens.\n")
	case llm.FinishRefusal:
		b.WriteString("\n> The provider or the model stopped the answer here.\n")
	}
	if len(j.Citations) > 0 {
		b.WriteString("\n## Sources\n\n")
		for i, c := range j.Citations {
			fmt.Fprintf(&b, "%d. %s, line %d\n", i+1, cited(c), c.Line)
		}
	}
	return b.String()
}

// FileName is a text as the name of a file in the vault, without an ending.
func FileName(text string) string { return plain(title(text)) }

// report is the report of a research job that is done; "" where there is none, and the answer is the note.
func (s *Service) report(ctx context.Context, j *Job) (front, body string, err error) {
	if j.Type != Research || s.config.Report == nil {
		return "", "", nil
	}
	front, body, ok, err := s.config.Report(ctx, RunName(j.ID, 0))
	if err != nil || !ok {
		return "", "", err
	}
	return front, body, nil
}

// owned is how the frontmatter of a note begins that belongs to a job; the library leaves such notes out (generated: true).
func owned(job int64) string { return fmt.Sprintf("generated: true\njob: %d\n", job) }

// created is the line of a note's frontmatter that says when its job ended.
func (j *Job) created() string { return "created: " + j.Ended.Local().Format(time.RFC3339) + "\n" }

// isNoteOf says that a note is one that this program wrote for a job's end. The number alone does not say it: another database
// may have counted from 1 before this one did.
func (j *Job) isNoteOf(text []byte) bool {
	front, ok := bytes.CutPrefix(text, []byte("---\n"+owned(j.ID)))
	front, _, ended := bytes.Cut(front, []byte("\n---\n"))
	return ok && ended && slices.Contains(strings.SplitAfter(string(front)+"\n", "\n"), j.created())
}

// isReason says that a note is one that refusal or ending wrote.
func isReason(text []byte) bool {
	return bytes.HasPrefix(text, []byte("---\ngenerated: true\n")) && bytes.Contains(text, []byte("\nreason_for: "))
}

// reason writes the note that stands beside a file in the failed folder.
func reason(file, head, body string) []byte {
	return []byte(llm.Inert(fmt.Sprintf("---\n%sreason_for: %s\n---\n\n%s\n", head, quote(link(file, "")), body), ""))
}

// refused says why a file is not a job.
func (f *Folders) refused(file string, faults strict.Faults) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is not a job:\n\n", link(file, path.Base(file)))
	for _, x := range faults {
		fmt.Fprintf(&b, "* %s\n", x)
	}
	fmt.Fprintf(&b, "\nChange that and move the file into `%s` again.", f.Queue)
	return reason(file, "generated: true\n", b.String())
}

// ended says why a job's file is in the failed folder.
func (f *Folders) ended(j *Job, file string) []byte {
	says := fmt.Sprintf("%s was job %d, and it failed: %s.", link(file, path.Base(file)), j.ID, strings.TrimRight(j.Reason, "."))
	if j.State == Cancelled {
		says = fmt.Sprintf("%s was job %d, and a person cancelled it.", link(file, path.Base(file)), j.ID)
	}
	return reason(file, owned(j.ID), fmt.Sprintf("%s\n\nTo have the same job go on, retry it: on its page, or with `llm-runner job retry %d`. To ask for something else, change the file "+
		"and move it into `%s` again.", says, j.ID, f.Queue))
}

// link leads to a note: a wikilink, or a Markdown link where the path has characters that a wikilink cannot hold.
func link(p, text string) string {
	if strings.ContainsAny(p, "[]#^|") {
		if text == "" {
			text = strings.NewReplacer("[", "(", "]", ")").Replace(path.Base(p))
		}
		return fmt.Sprintf("[%s](%s)", strings.NewReplacer("[", "(", "]", ")").Replace(text), (&url.URL{Path: p}).EscapedPath())
	}
	p = strings.TrimSuffix(p, ".md")
	if text = strings.TrimSuffix(text, ".md"); text == "" {
		return "[[" + p + "]]"
	}
	return "[[" + p + "|" + text + "]]"
}

// cited links to a passage: its note, and the heading above it; of a PDF its page, which Obsidian opens; of a fetched page where it came from.
func cited(c llm.Citation) string {
	if c.Collection != "" {
		name := strings.NewReplacer("[", `\[`, "]", `\]`, "<", `\<`, "\n", " ").Replace(c.Path)
		if (strings.HasPrefix(c.URL, "https://") || strings.HasPrefix(c.URL, "http://")) && !strings.ContainsAny(c.URL, "<> \n") {
			return "[" + name + "](<" + c.URL + ">)"
		}
		return name + " (" + c.Collection + ")" + onPage(c)
	}
	if !strings.HasSuffix(c.Path, ".md") && !strings.ContainsAny(c.Path, "[]#^|") {
		if c.Page > 0 {
			return fmt.Sprintf("[[%s#page=%d|%s%s]]", c.Path, c.Page, c.Path, onPage(c))
		}
		return "[[" + c.Path + "]]"
	}
	if strings.ContainsAny(c.Path, "[]#^|") {
		return link(c.Path, c.Path)
	}
	target, text := strings.TrimSuffix(c.Path, ".md"), strings.TrimSuffix(c.Path, ".md")
	for _, h := range c.Heading {
		if h = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
			if strings.ContainsRune("[]#^|", r) {
				return ' '
			}
			return r
		}, h)), " "); h != "" {
			target, text = target+"#"+h, text+", "+h
		}
	}
	if target == text {
		return "[[" + target + "]]"
	}
	return "[[" + target + "|" + text + "]]"
}

func onPage(c llm.Citation) string {
	if c.Page == 0 {
		return ""
	}
	return fmt.Sprintf(", page %d", c.Page)
}

// quote writes a text as a YAML scalar in double quotes: the escapes of Go are among those of YAML 1.2 (5.7).
func quote(text string) string { return strconv.Quote(strings.ToValidUTF8(text, "\uFFFD")) }

func number(c llm.Count) string {
	if n, ok := c.Get(); ok {
		return strconv.FormatInt(n, 10)
	}
	return "null"
}

// dollars writes micro-USD as USD.
func dollars(c llm.Count) string {
	n, ok := c.Get()
	if !ok {
		return "null"
	}
	return fmt.Sprintf("%d.%06d", n/1e6, n%1e6)
}

// worked is how long a job was running in all, by its timeline.
func worked(timeline []Event) (d time.Duration) {
	var since time.Time
	for _, e := range timeline {
		switch {
		case e.From == e.To:
		case e.To == Running:
			since = e.At
		case e.From == Running && !since.IsZero():
			d += e.At.Sub(since)
			since = time.Time{}
		}
	}
	return max(d, 0)
}
