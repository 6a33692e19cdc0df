package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Desk is who researches: the queue of jobs.
type Desk struct {
	// Read returns a note of the vault, fs.ErrNotExist where there is none.
	Read func(ctx context.Context, path string) ([]byte, error)
	// Submit hands a topic in and returns the job's number; the same key is the same job.
	Submit func(ctx context.Context, topic, key string) (int64, error)
	// Result returns what has become of a job.
	Result func(ctx context.Context, job int64) (Finding, error)
	// Private says that a note must not leave this machine.
	Private func(path string) bool
}

// A Finding is what a job has found.
type Finding struct {
	Ended   bool
	Failed  string // why it has failed; "" it has not
	Waits   string // what it waits for, where it has not ended
	Answer  string
	Sources []llm.Citation
	Spent   Spent
}

// Known is what was known of a topic after a run.
type Known struct {
	Topic   string   `json:"topic"`
	Job     int64    `json:"job"`
	Answer  string   `json:"answer"`
	Failed  string   `json:"failed,omitempty"`
	Sources []Source `json:"sources"`
	Private bool     `json:"private,omitempty"`
}

// A Source is where something stands.
type Source struct {
	Name string `json:"name"`
	Link string `json:"link"` // Markdown
}

const (
	mostTopics  = 20
	lookAgain   = 15 * time.Second // at a job that has not ended
	jobPatience = 24 * time.Hour
)

var topicPattern = regexp.MustCompile(`^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[(.)\][ \t]+)?(.+?)[ \t]*$`)

// Topics reads the items of a note's lists; those that are ticked off, and what stands in code, are none.
func Topics(text []byte) (all []string) {
	_, body, _ := cutFront(text)
	fence := false
	seen := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimRight(line, "\r\n")
		if t := strings.TrimSpace(line); strings.HasPrefix(t, "```") || strings.HasPrefix(t, "~~~") {
			fence = !fence
			continue
		}
		m := topicPattern.FindStringSubmatch(line)
		if m == nil || fence || m[1] != "" && m[1] != " " {
			continue
		}
		topic := cut(oneLine(plainLinks(m[2])), 200)
		if topic != "" && !seen[topic] && len(all) < mostTopics {
			seen[topic] = true
			all = append(all, topic)
		}
	}
	return all
}

// research has each topic researched, and tells what is new since the last time.
func (x *runner) research() (out Output, err error) {
	desk := x.s.config.Desk
	out.Title = x.agent.Title + ", " + x.day()
	if desk.Read == nil || desk.Submit == nil {
		return out, &llm.Error{Kind: llm.BadRequest, Message: "research needs a vault and the queue: name a vault with vault.path"}
	}
	topics, err := stepJSON(x, "topics", func() ([]string, string, error) {
		if x.run.Task != "" { // another agent asks
			return []string{cut(oneLine(x.run.Task), 400)}, "", nil
		}
		file := x.agent.Topics
		if file == "" {
			file = x.s.config.Topics
		}
		text, err := desk.Read(x.ctx, file)
		if isMissing(err) {
			return []string{}, "no topics: there is no note " + file, nil
		}
		if err != nil {
			return nil, "", err
		}
		all := Topics(text)
		return all, count(int64(len(all)), "topic"), nil
	})
	if err != nil {
		return out, err
	}
	if len(topics) == 0 {
		out.Text = "There is no topic to research: write a list of them into the note `" + strings.Trim(firstOf(x.agent.Topics, x.s.config.Topics), "`") + "`."
		return out, nil
	}
	if dry, err := x.dry(); err != nil {
		return out, err
	} else if dry {
		out.Text = "A run would hand in one job of type research for each topic, and write a note about each:\n\n- " + strings.Join(topics, "\n- ")
		return out, nil
	}
	jobs := make([]int64, len(topics))
	for i, topic := range topics { // all are handed in before any is waited for
		if jobs[i], err = stepJSON(x, "ask "+topicKey(topic), func() (int64, string, error) {
			id, err := desk.Submit(x.ctx, x.question(topic), fmt.Sprintf("agent-%d-%s", x.run.ID, topicKey(topic)))
			return id, fmt.Sprintf("job %d: %s", id, topic), err
		}); err != nil {
			return out, err
		}
	}
	var text, outside strings.Builder
	for i, topic := range topics {
		k, err := stepJSON(x, "topic "+topicKey(topic), func() (Known, string, error) { return x.await(topic, jobs[i]) })
		if err != nil {
			return out, err
		}
		before, when, err := x.before(topic)
		if err != nil {
			return out, err
		}
		n := report(k, before, when)
		if k.Failed == "" && !x.s.config.Writer() {
			n.summary = "No model is connected: the note has what your notes say, as it stands there."
		}
		n.note.Name = plainName(topic) + "/" + x.day()
		if k.Failed == "" {
			out.Notes = append(out.Notes, n.note)
		}
		fmt.Fprintf(&text, "### %s\n\n%s\n\n", topic, n.summary)
		if k.Private {
			fmt.Fprintf(&outside, "### %s\n\nIt rests on private notes; the note in the vault has it.\n\n", topic)
		} else {
			fmt.Fprintf(&outside, "### %s\n\n%s\n\n", topic, n.summary)
		}
	}
	out.Text, out.Outside = strings.TrimSpace(text.String()), strings.TrimSpace(outside.String())
	return out, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// question is what a job is asked about a topic.
func (x *runner) question(topic string) string {
	if p := x.filled(); p != "" {
		return topic + "\n\n" + p
	}
	return topic
}

// await returns what a job has found, or has the run go on later.
func (x *runner) await(topic string, job int64) (k Known, note string, err error) {
	f, err := x.s.config.Desk.Result(x.ctx, job)
	if err != nil {
		return k, "", err
	}
	now := x.s.config.Now()
	if !f.Ended && now.Sub(x.run.Started) < jobPatience {
		why := fmt.Sprintf("job %d is under way: %s", job, topic)
		if f.Waits != "" {
			why = fmt.Sprintf("job %d waits (%s): %s", job, f.Waits, topic)
		}
		return k, "", &waitError{now.Add(lookAgain), why, ""}
	}
	k = Known{Topic: topic, Job: job, Answer: f.Answer, Failed: f.Failed}
	if !f.Ended {
		k.Failed = "the job has not ended within a day"
	}
	x.run.Tokens += f.Spent.Tokens
	x.run.MicroUSD += f.Spent.MicroUSD
	for _, c := range f.Sources {
		k.Sources = append(k.Sources, sourceOf(c))
		k.Private = k.Private || c.Collection == "" && x.s.config.Desk.Private != nil && x.s.config.Desk.Private(c.Path)
	}
	return k, count(int64(len(k.Sources)), "source"), nil
}

func sourceOf(c llm.Citation) Source {
	if c.Collection == "" {
		return Source{c.Path, noteLink(c.Path, strings.TrimSuffix(c.Path, ".md"))}
	}
	name := c.Path
	if c.URL != "" {
		name = c.URL
	}
	return Source{name, webLink(Hit{Title: c.Path, URL: c.URL})}
}

// before is what was known of a topic after the run before this one.
func (x *runner) before(topic string) (k Known, when time.Time, err error) {
	text, when, err := stepBefore(x.ctx, x.s.db, x.run, "topic "+topicKey(topic))
	if err != nil || text == "" {
		return k, time.Time{}, err
	}
	return decodeKnown(text), when, nil
}

// A topicReport is what is said about a topic.
type topicReport struct {
	note    Note
	summary string
}

// report says what is known of a topic, and what of it was not before; when is zero where nothing was.
func report(k, before Known, when time.Time) topicReport {
	r := topicReport{note: Note{Title: k.Topic}}
	if k.Failed != "" {
		r.summary = fmt.Sprintf("Nothing was found: job %d failed (%s).", k.Job, oneLine(k.Failed))
		return r
	}
	claims := sentences(k.Answer)
	var fresh []string
	var sources []Source
	if !when.IsZero() {
		fresh, sources = News(k, before)
	}
	var b strings.Builder
	switch {
	case when.IsZero():
		r.summary = cut(strings.Join(claims, " "), 600)
		b.WriteString("*The first look at this topic.*\n\n")
	case len(fresh) == 0 && len(sources) == 0:
		r.summary = "Nothing new since " + when.Format(time.DateOnly) + "."
		b.WriteString("## New since " + when.Format(time.DateOnly) + "\n\nNothing.\n\n")
	default:
		b.WriteString("## New since " + when.Format(time.DateOnly) + "\n\n")
		for _, f := range fresh {
			b.WriteString("- " + f + "\n")
		}
		for _, s := range sources {
			b.WriteString("- a new source: " + s.Link + "\n")
		}
		b.WriteString("\n")
		r.summary = fmt.Sprintf("New since %s: ", when.Format(time.DateOnly))
		if len(fresh) > 0 {
			r.summary += cut(strings.Join(fresh, " "), 600)
		} else {
			r.summary += count(int64(len(sources)), "source") + "."
		}
	}
	b.WriteString("## What is known\n\n" + strings.TrimSpace(k.Answer) + "\n")
	if len(k.Sources) > 0 {
		b.WriteString("\n## Sources\n\n")
		for i, s := range k.Sources {
			fmt.Fprintf(&b, "%d. %s\n", i+1, s.Link)
		}
	}
	r.note.Text = b.String()
	return r
}

// News returns the sentences and the sources of k that were not known before. A sentence was known where most of its words stood together in
// one before: models put the same thing in other words each time.
func News(k, before Known) (claims []string, sources []Source) {
	var known []map[string]bool
	for _, s := range sentences(before.Answer) {
		known = append(known, wordsOf(s))
	}
	for _, s := range sentences(k.Answer) {
		w := wordsOf(s)
		if len(w) == 0 {
			continue
		}
		new := true
		for _, old := range known {
			both := 0
			for x := range w {
				if old[x] {
					both++
				}
			}
			new = new && float64(both) < 0.7*float64(len(w))
		}
		if new {
			claims = append(claims, s)
		}
	}
	had := map[string]bool{}
	for _, s := range before.Sources {
		had[s.Name] = true
	}
	for _, s := range k.Sources {
		if !had[s.Name] {
			had[s.Name] = true
			sources = append(sources, s)
		}
	}
	return claims, sources
}

var (
	markPattern = regexp.MustCompile(`\[\d+(?:, ?\d+)*\]`)
	endPattern  = regexp.MustCompile(`[.!?](?:\s|$)|\n\s*\n|\n\s*[-*+] `)
)

// sentences parts an answer into sentences, without the marks of sources and headings.
func sentences(text string) (all []string) {
	text = markPattern.ReplaceAllString(text, "")
	text = headingPattern.ReplaceAllString(text, "")
	for text != "" {
		at := endPattern.FindStringIndex(text)
		end, next := len(text), len(text)
		if at != nil {
			end, next = at[0], at[1]
			if strings.ContainsRune(".!?", rune(text[at[0]])) {
				end++
			}
		}
		s := strings.TrimLeft(oneLine(text[:end]), "-*+ ")
		s = strings.ReplaceAll(s, " .", ".")
		if strings.IndexFunc(s, unicode.IsLetter) >= 0 {
			all = append(all, s)
		}
		text = text[next:]
	}
	return all
}

func wordsOf(s string) map[string]bool {
	all := map[string]bool{}
	for _, w := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }) {
		if len(w) > 2 || unicode.IsNumber(rune(w[0])) {
			all[w] = true
		}
	}
	return all
}

// topicKey names a topic in steps and keys: the same words are the same topic.
func topicKey(topic string) string {
	h := fnv.New64a()
	h.Write([]byte(strings.ToLower(strings.Join(strings.Fields(topic), " ")))) //nolint:errcheck // it never fails
	return fmt.Sprintf("%016x", h.Sum64())
}

// plainName is a topic as a file's name.
func plainName(topic string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == ' ':
			return r
		}
		return ' '
	}, topic)
	name = strings.Join(strings.Fields(name), " ")
	if r := []rune(name); len(r) > 60 {
		name = strings.TrimSpace(string(r[:60]))
	}
	if name == "" {
		name = topicKey(topic)
	}
	return path.Base(name)
}

func decodeKnown(text string) (k Known) {
	if json.Unmarshal([]byte(text), &k) != nil {
		return Known{} // of another version of the program
	}
	return k
}
