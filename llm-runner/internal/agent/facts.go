package agent

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Sources are where a briefing has its facts from. Any may be nil: then it says nothing of that.
type Sources struct {
	// Changed returns the notes that changed since a time, newest first, without those that programs wrote.
	Changed func(ctx context.Context, since time.Time) ([]Changed, error)
	// Tasks returns passages of notes that may hold open tasks.
	Tasks func(ctx context.Context) ([]Passage, error)
	// Projects returns how far projects are.
	Projects func(ctx context.Context) ([]Project, error)
	// Work returns jobs that ended since a time, and those that are held now.
	Work func(ctx context.Context, since time.Time) ([]Work, error)
	// Backups returns what is wrong with backups and drills, and what is watched; ok: how many things are well.
	Backups func(ctx context.Context, now time.Time) (wrong []string, ok int, err error)
	// Used returns what each provider was used for since a time.
	Used func(ctx context.Context, since time.Time) ([]Used, error)
	// Search looks on the web.
	Search func(ctx context.Context, query string) ([]Hit, error)
	// Feed returns what stands in a feed, the newest first as a rule.
	Feed func(ctx context.Context, url string) ([]Headline, error)
}

// A Headline is an entry of a feed.
type Headline struct {
	Title, URL string
	At         time.Time // zero: it does not say
}

// Changed is a note that changed.
type Changed struct {
	Path, Title string
	At          time.Time
	Private     bool // no cloud provider may see it
}

// A Passage is some text of a note.
type Passage struct {
	Path, Text string
	Line       int       // of its first line
	At         time.Time // when its note changed last; zero: nobody knows
	Private    bool
}

// A Project is a note of tasks.
type Project struct {
	Title, Path string
	Done, Total int
	Next        string // the first open task that nothing is in the way of
	Private     bool
}

// Work is a job.
type Work struct {
	ID            int64
	Title, Reason string
	State         string // done, failed, held
}

// Used is the work of one provider, with the fullest of its limits.
type Used struct {
	Provider       string
	Requests       int64
	Errors         int64
	Tokens         int64
	MicroUSD       int64
	Limit          string // "81 % of requests per day", "" none is known
	LimitIsReached bool
}

// A Hit is a page that a search has found.
type Hit struct{ Title, URL, Text string }

// A Fact is one line of a briefing.
type Fact struct {
	Text    string `json:"text"` // Markdown
	Private bool   `json:"private,omitempty"`
}

// A Section is facts of one kind.
type Section struct {
	Name  string `json:"name"`
	Facts []Fact `json:"facts"`
	More  int    `json:"more,omitempty"` // that are not listed
	// Wrong says that something of it needs a person.
	Wrong bool `json:"wrong,omitempty"`
}

const (
	mostFacts    = 12 // of one section
	mostSearches = 8  // and feeds
	hitsEach     = 3
	newsEach     = 5
	tasksNoDay   = 3 // that are named
	soonDays     = 7 // tasks that are due so soon are told of
)

// gather collects what a briefing says. A source that fails is a line of its own: the others go on.
func gather(ctx context.Context, src Sources, searches, feeds []string, since, now time.Time) []Section {
	var all []Section
	var open []Passage
	add := func(s Section) {
		if len(s.Facts) > mostFacts {
			s.More, s.Facts = len(s.Facts)-mostFacts, s.Facts[:mostFacts]
		}
		if len(s.Facts) > 0 {
			all = append(all, s)
		}
	}
	failed := func(name string, err error) {
		add(Section{Name: name, Facts: []Fact{{Text: "could not be read: " + oneLine(err.Error())}}, Wrong: true})
	}
	if src.Backups != nil {
		wrong, ok, err := src.Backups(ctx, now)
		s := Section{Name: "Backups and drills", Wrong: len(wrong) > 0}
		for _, w := range wrong {
			s.Facts = append(s.Facts, Fact{Text: oneLine(w)})
		}
		switch {
		case err != nil:
			failed(s.Name, err)
		case len(wrong) == 0 && ok > 0:
			s.Facts = append(s.Facts, Fact{Text: fmt.Sprintf("all %d are well", ok)})
			add(s)
		default:
			add(s)
		}
	}
	if src.Work != nil {
		work, err := src.Work(ctx, since)
		if err != nil {
			failed("Jobs", err)
		}
		add(jobsSection(work))
	}
	if src.Tasks != nil {
		passages, err := src.Tasks(ctx)
		if err != nil {
			failed("Due", err)
		}
		add(dueSection(passages, now))
		open = passages
	}
	if src.Projects != nil {
		projects, err := src.Projects(ctx)
		if err != nil {
			failed("Projects", err)
		}
		s := Section{Name: "Projects"}
		for _, p := range projects {
			if p.Done == p.Total {
				continue
			}
			text := fmt.Sprintf("%s: %d of %d done", noteLink(p.Path, p.Title), p.Done, p.Total)
			if p.Next != "" {
				_, next, _ := dayOf(p.Next)
				text += "; next: " + oneLine(next)
			}
			s.Facts = append(s.Facts, Fact{text, p.Private})
		}
		add(s)
		open = slices.DeleteFunc(open, func(x Passage) bool { // they have been told of
			return slices.ContainsFunc(projects, func(p Project) bool { return p.Path == x.Path })
		})
	}
	add(noDaySection(open))
	if src.Changed != nil {
		changed, err := src.Changed(ctx, since)
		if err != nil {
			failed("Changed notes", err)
		}
		s := Section{Name: "Changed notes"}
		for _, c := range changed {
			s.Facts = append(s.Facts, Fact{noteLink(c.Path, c.Title), c.Private})
		}
		add(s)
	}
	if src.Used != nil {
		used, err := src.Used(ctx, since)
		if err != nil {
			failed("Models", err)
		}
		add(usedSection(used))
	}
	if src.Search != nil {
		for _, q := range searches {
			hits, err := src.Search(ctx, q)
			s := Section{Name: "On the web: " + oneLine(q)}
			if err != nil {
				failed(s.Name, err)
				continue
			}
			for _, h := range hits[:min(len(hits), hitsEach)] {
				s.Facts = append(s.Facts, Fact{Text: webLink(h)})
			}
			add(s)
		}
	}
	if src.Feed != nil {
		for _, f := range feeds {
			news, err := src.Feed(ctx, f)
			name := "News: " + site(f)
			if err != nil {
				failed(name, err)
				continue
			}
			add(newsSection(name, news, since, now))
		}
	}
	return all
}

// site is what a feed is called: its host.
func site(feed string) string {
	if u, err := url.Parse(feed); err == nil && u.Host != "" {
		return strings.TrimPrefix(u.Host, "www.")
	}
	return feed
}

// newsSection tells what has come into a feed since a time, the newest first. What does not say of when it is would come again each day.
func newsSection(name string, news []Headline, since, now time.Time) Section {
	s := Section{Name: name}
	dated := slices.DeleteFunc(slices.Clone(news), func(n Headline) bool { return n.At.IsZero() })
	if len(news) > 0 && len(dated) == 0 {
		s.Facts = append(s.Facts, Fact{Text: "its entries have no dates, so nobody knows which are new"})
		return s
	}
	fresh := slices.DeleteFunc(dated, func(n Headline) bool { return !n.At.After(since) || n.At.After(now.Add(time.Hour)) || n.Title == "" })
	slices.SortStableFunc(fresh, func(a, b Headline) int { return b.At.Compare(a.At) })
	for _, n := range fresh[:min(len(fresh), newsEach)] {
		s.Facts = append(s.Facts, Fact{Text: webLink(Hit{Title: n.Title, URL: n.URL})})
	}
	s.More = max(len(fresh)-newsEach, 0)
	return s
}

func jobsSection(work []Work) Section {
	s := Section{Name: "Jobs"}
	done := 0
	order := map[string]int{"failed": 0, "held": 1}
	slices.SortStableFunc(work, func(a, b Work) int { return order[a.State] - order[b.State] })
	for _, w := range work {
		switch w.State {
		case "done":
			done++
		case "failed":
			s.Facts, s.Wrong = append(s.Facts, Fact{Text: fmt.Sprintf("job %d failed: %s (%s)", w.ID, oneLine(w.Title), oneLine(w.Reason))}), true
		case "held":
			s.Facts = append(s.Facts, Fact{Text: fmt.Sprintf("job %d is held: %s (%s)", w.ID, oneLine(w.Title), oneLine(w.Reason))})
		}
	}
	if done > 0 {
		names := []string{}
		for _, w := range work {
			if w.State == "done" && len(names) < 3 {
				names = append(names, oneLine(w.Title))
			}
		}
		text := fmt.Sprintf("%d finished: %s", done, strings.Join(names, "; "))
		if done > len(names) {
			text += fmt.Sprintf("; and %d more", done-len(names))
		}
		s.Facts = append(s.Facts, Fact{Text: text})
	}
	return s
}

func usedSection(used []Used) Section {
	s := Section{Name: "Models"}
	for _, u := range used {
		if u.Requests == 0 && !u.LimitIsReached {
			continue
		}
		text := fmt.Sprintf("%s: %s, %d tokens", u.Provider, count(u.Requests, "request"), u.Tokens)
		if u.MicroUSD > 0 {
			text += fmt.Sprintf(", $%.4f", float64(u.MicroUSD)/1e6)
		}
		if u.Errors > 0 {
			text += ", " + count(u.Errors, "error")
		}
		if u.Limit != "" {
			text += "; used of its limit: " + u.Limit
		}
		s.Facts, s.Wrong = append(s.Facts, Fact{Text: text}), s.Wrong || u.LimitIsReached
	}
	return s
}

func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

var (
	openTask = regexp.MustCompile(`^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\[ \][ \t]+(.*)$`)
	// aDay is a day with what says of which kind it is: a sign or a word, as the plugins Tasks and Dataview of Obsidian have them.
	aDay = regexp.MustCompile(`(?i)\s*(?:([📅📆🗓⏳⌛🛫➕✅❌])\x{FE0F}?|[\[(]?\b(due|scheduled|start|created|completion|cancelled)\b ?:{0,2}|(@))?\s*\(?\b(20\d\d-[01]\d-[0-3]\d)\b[\])]*`)
)

// dayRanks says which of a task's days it is due on: the first of the lowest rank. Days of other kinds say when it was written down, or may be begun.
var dayRanks = map[string]int{"📅": 0, "📆": 0, "🗓": 0, "due": 0, "⏳": 1, "⌛": 1, "scheduled": 1, "": 2, "@": 2}

// dayOf returns the day that a task is due on, and its text without that and without what stands for other days; ok: there is one.
func dayOf(task string) (day time.Time, text string, ok bool) {
	best, at := len(dayRanks), -1
	all := aDay.FindAllStringSubmatch(task, -1)
	for i, m := range all {
		rank, known := dayRanks[strings.ToLower(m[1]+m[2]+m[3])]
		if d, err := time.Parse(time.DateOnly, m[4]); err == nil && known && rank < best {
			day, best, at, ok = d, rank, i, true
		}
	}
	i := -1
	text = strings.TrimSpace(aDay.ReplaceAllStringFunc(task, func(whole string) string {
		if i++; i != at && all[i][1]+all[i][2]+all[i][3] == "" {
			return whole // a day that the sentence speaks of
		}
		return ""
	}))
	return day, cmp.Or(text, task), ok
}

// A DueTask is an open task with a day.
type DueTask struct {
	Text, Path string
	Line       int
	Day        time.Time
	Private    bool
}

// openTasks yields the text and the line of each open task of a passage.
func openTasks(p Passage) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		fence := false
		for i, line := range strings.Split(p.Text, "\n") {
			if t := strings.TrimSpace(line); strings.HasPrefix(t, "```") || strings.HasPrefix(t, "~~~") {
				fence = !fence
				continue
			}
			if m := openTask.FindStringSubmatch(strings.TrimSuffix(line, "\r")); m != nil && !fence && !yield(p.Line+i, m[1]) {
				return
			}
		}
	}
}

// DueTasks returns the open tasks of passages that name a day up to soonDays from now, in the order of their days.
func DueTasks(passages []Passage, now time.Time) []DueTask {
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	var all []DueTask
	for _, p := range passages {
		for line, task := range openTasks(p) {
			if day, text, ok := dayOf(task); ok && !day.After(today.AddDate(0, 0, soonDays)) {
				all = append(all, DueTask{text, p.Path, line, day, p.Private})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b DueTask) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Path, b.Path), a.Line-b.Line)
	})
	return slices.CompactFunc(all, func(a, b DueTask) bool { return a.Path == b.Path && a.Line == b.Line })
}

func dueSection(passages []Passage, now time.Time) Section {
	s := Section{Name: "Due"}
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	for _, t := range DueTasks(passages, now) {
		when := ""
		switch days := int(t.Day.Sub(today).Hours() / 24); {
		case days < -1:
			when = fmt.Sprintf("%d days late", -days)
		case days == -1:
			when = "since yesterday"
		case days == 0:
			when = "today"
		case days == 1:
			when = "tomorrow"
		default:
			when = t.Day.Format("Monday")
		}
		s.Wrong = s.Wrong || t.Day.Before(today)
		s.Facts = append(s.Facts, Fact{fmt.Sprintf("%s: %s (%s)", when, oneLine(t.Text), noteLink(t.Path, "")), t.Private})
	}
	return s
}

// noDaySection names the newest open tasks that no day is written at: those of the notes that changed last, the lowest of each first.
func noDaySection(passages []Passage) Section {
	s := Section{Name: "Open tasks without a day"}
	all := slices.Clone(passages)
	slices.SortStableFunc(all, func(a, b Passage) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Path, b.Path), b.Line-a.Line)
	})
	seen := map[string]bool{}
	for _, p := range all {
		var facts []Fact
		for line, task := range openTasks(p) {
			_, text, dated := dayOf(task)
			if at := fmt.Sprint(p.Path, "#", line); !dated && !seen[at] {
				seen[at] = true
				facts = append(facts, Fact{oneLine(text) + " (" + noteLink(p.Path, "") + ")", p.Private})
			}
		}
		slices.Reverse(facts)
		named := min(len(facts), tasksNoDay-len(s.Facts))
		s.Facts, s.More = append(s.Facts, facts[:named]...), s.More+len(facts)-named
	}
	return s
}

// noteLink leads to a note.
func noteLink(p, title string) string {
	p = strings.TrimSuffix(p, ".md")
	title = oneLine(strings.NewReplacer("[", "(", "]", ")", "|", "/").Replace(title))
	if strings.ContainsAny(p, "[]#^|") {
		return cmp.Or(title, strings.NewReplacer("[", "(", "]", ")").Replace(path.Base(p)))
	}
	if title == "" || title == p {
		title = path.Base(p)
	}
	if title == p {
		return "[[" + p + "]]"
	}
	return "[[" + p + "|" + title + "]]"
}

// webLink leads to a page that others wrote.
func webLink(h Hit) string {
	title := strings.NewReplacer("[", "(", "]", ")", "<", "‹", "`", "'").Replace(cut(oneLine(cmp.Or(h.Title, h.URL)), 120))
	if !strings.HasPrefix(h.URL, "https://") && !strings.HasPrefix(h.URL, "http://") || strings.ContainsAny(h.URL, "<> \n") {
		return title
	}
	return "[" + title + "](<" + h.URL + ">)"
}

// oneLine is a text on one line, bounded.
func oneLine(text string) string {
	return cut(strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " "), 300)
}

// cut shortens a text to n characters.
func cut(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return strings.TrimRight(string(r[:n-1]), " ,.;:-") + "…"
	}
	return text
}
