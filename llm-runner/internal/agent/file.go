package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/internal/strict"
)

// A Kind says what an agent does with its prompt.
type Kind string

const (
	Prompt   Kind = "prompt"   // has a model answer it, with tools
	Briefing Kind = "briefing" // tells what has happened, by rules; the prompt says how a model writes the lead
	Research Kind = "research" // has each topic of a note researched, and tells what is new
	Memory   Kind = "memory"   // learns facts about the person from conversations
)

var kinds = []Kind{Prompt, Briefing, Research, Memory}

// A Budget bounds one run; zero fields are the defaults.
type Budget struct {
	Tokens    int64         `yaml:"tokens" json:"tokens"`                 // in and out
	MicroUSD  int64         `yaml:"micro_usd" json:"micro_usd,omitempty"` // millionths of a dollar; 0 no bound
	Time      time.Duration `yaml:"time" json:"time_ns"`                  // of work; what it waits does not count
	ToolCalls int           `yaml:"tool_calls" json:"tool_calls"`
}

// defaultBudget is enough for a thorough answer with tools, and little enough to forget about.
var defaultBudget = Budget{Tokens: 200_000, Time: 10 * time.Minute, ToolCalls: 24}

// An Agent is one file.
type Agent struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Kind     Kind     `json:"kind"`
	Model    string   `json:"model,omitempty"` // "" the route table's default; "none" no model
	Tools    []string `json:"tools,omitempty"`
	Schedule Schedule `json:"-"`
	Deliver  []string `json:"deliver"`
	Budget   Budget   `json:"budget"`
	Missed   Missed   `json:"missed"`
	Topics   string   `json:"topics,omitempty"`   // of Research: the note that lists them
	Searches []string `json:"searches,omitempty"` // of Briefing: what is looked for on the web
	Feeds    []string `json:"feeds,omitempty"`    // of Briefing: URLs of RSS or Atom
	Prompt   string   `json:"prompt"`
	Text     string   `json:"text"`   // the whole file
	Source   string   `json:"source"` // where the file is: a path, or "built in"
	BuiltIn  bool     `json:"built_in"`
	inVault  bool     // the file is
}

// noModel is the model of an agent that wants none.
const noModel = "none"

// front is an agent's frontmatter as people write it.
type front struct {
	Title    string   `yaml:"title"`
	Kind     string   `yaml:"kind"`
	Model    string   `yaml:"model"`
	Tools    []string `yaml:"tools"`
	Schedule string   `yaml:"schedule"`
	Timezone string   `yaml:"timezone"`
	Deliver  []string `yaml:"deliver"`
	Budget   Budget   `yaml:"budget"`
	Missed   string   `yaml:"missed"`
	Topics   string   `yaml:"topics"`
	Searches []string `yaml:"searches"`
	Feeds    []string `yaml:"feeds"`
	Tags     []string `yaml:"tags"` // the person's own, for their notes
}

// A FileFault is what an agent's file gets wrong.
type FileFault struct {
	Path   string        `json:"path"`
	Faults strict.Faults `json:"-"`
	Says   []string      `json:"faults"`
}

func faultOf(path string, faults strict.Faults) FileFault {
	f := FileFault{Path: path, Faults: faults}
	for _, x := range faults {
		f.Says = append(f.Says, x.String())
	}
	return f
}

func (f FileFault) Error() string {
	return f.Path + ": " + strings.ReplaceAll(f.Faults.Error(), "\n", "; ")
}

var (
	namePattern  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)
	placePattern = regexp.MustCompile(`\{\{\s*([^{}]*?)\s*\}\}`)
)

// places are what a prompt may have filled in.
var places = []string{"date", "time", "weekday", "last", "agent", "task"}

// Parse reads an agent's file. zone is the time zone where none is written; sinks are the names that deliver may have.
func Parse(name string, text []byte, zone *time.Location, sinks []string) (Agent, strict.Faults) {
	a := Agent{Name: name, Text: string(text)}
	head, body, lines := cutFront(text)
	f := front{Missed: string(Once), Kind: string(Prompt)}
	at, faults := strict.Decode(head, &f)
	for i := range faults {
		if faults[i].Line > 0 {
			faults[i].Line++ // the line of dashes
		}
	}
	fault := func(key, format string, args ...any) {
		line := at[key]
		if line > 0 {
			line++
		}
		faults = append(faults, strict.Fault{Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
	}
	if !namePattern.MatchString(name) || name == "runs" {
		fault("", "the file's name %q cannot be an agent's: use small letters, digits, - and _, a letter first, such as weekly-review.md", name)
	}
	a.Title, a.Model, a.Tools, a.Searches, a.Feeds, a.Topics = cmp.Or(f.Title, name), f.Model, f.Tools, f.Searches, f.Feeds, f.Topics
	if a.Kind = Kind(f.Kind); !slices.Contains(kinds, a.Kind) {
		fault("kind", "%q is not a kind: use one of prompt, briefing, research, memory", f.Kind)
	}
	if a.Missed = Missed(f.Missed); a.Missed != Once && a.Missed != Each && a.Missed != Skip {
		fault("missed", "%q is none of run (each missed time), once (one for all), skip (none)", f.Missed)
	}
	if f.Timezone != "" {
		z, err := time.LoadLocation(f.Timezone)
		if err != nil {
			fault("timezone", "%q is no time zone: write for example Europe/Berlin", f.Timezone)
		} else {
			zone = z
		}
	}
	if f.Schedule != "" {
		s, err := ParseSchedule(f.Schedule, zone)
		if err != nil {
			fault("schedule", "%v", err)
		}
		a.Schedule = s
	} else {
		a.Schedule.zone = zone
	}
	for i, sink := range f.Deliver {
		if !slices.Contains(sinks, sink) {
			fault(fmt.Sprintf("deliver[%d]", i), "%q is nowhere that anything is delivered to: use one of %s", sink, strings.Join(sinks, ", "))
		}
		if slices.Contains(f.Deliver[:i], sink) {
			fault(fmt.Sprintf("deliver[%d]", i), "%q stands twice: remove one", sink)
		}
	}
	a.Deliver = f.Deliver
	for i, tool := range f.Tools {
		if tool == "" || strings.ContainsAny(tool, " \t\r\n,") {
			fault(fmt.Sprintf("tools[%d]", i), "%q is not the name of a tool: write for example web_search, or agent_NAME for another agent", tool)
		}
		if tool == toolPrefix+name {
			fault(fmt.Sprintf("tools[%d]", i), "an agent cannot call itself: remove it")
		}
	}
	if len(f.Tools) > 0 && a.Kind != Prompt && slices.Contains(kinds, a.Kind) {
		fault("tools", "an agent of kind %s uses none of a model's tools: leave them out, or make the kind prompt", a.Kind)
	}
	if f.Topics != "" && a.Kind != Research {
		fault("topics", "is for agents of kind research: leave it out")
	}
	if len(f.Searches) > 0 && a.Kind != Briefing {
		fault("searches", "is for agents of kind briefing: leave it out")
	}
	if len(f.Searches) > mostSearches {
		fault("searches", "%d are too many for one briefing: keep %d", len(f.Searches), mostSearches)
	}
	if len(f.Feeds) > 0 && a.Kind != Briefing {
		fault("feeds", "is for agents of kind briefing: leave it out")
	}
	if len(f.Feeds) > mostSearches {
		fault("feeds", "%d are too many for one briefing: keep %d", len(f.Feeds), mostSearches)
	}
	for i, feed := range f.Feeds {
		if u, err := url.Parse(feed); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			fault(fmt.Sprintf("feeds[%d]", i), "%q is no address of a feed: write one such as https://example.org/news.xml", feed)
		}
	}
	for _, n := range []struct {
		key   string
		value int64
	}{{"budget.tokens", f.Budget.Tokens}, {"budget.micro_usd", f.Budget.MicroUSD}, {"budget.time", int64(f.Budget.Time)}, {"budget.tool_calls", int64(f.Budget.ToolCalls)}} {
		if n.value < 0 {
			fault(n.key, "is below zero: leave it out for the default")
		}
	}
	for _, n := range []struct {
		key   string
		value int64
		of    []Kind
	}{{"budget.tokens", f.Budget.Tokens, []Kind{Prompt, Briefing}}, {"budget.micro_usd", f.Budget.MicroUSD, []Kind{Prompt}},
		{"budget.time", int64(f.Budget.Time), []Kind{Prompt, Briefing}}, {"budget.tool_calls", int64(f.Budget.ToolCalls), []Kind{Prompt}}} {
		if n.value > 0 && slices.Contains(kinds, a.Kind) && !slices.Contains(n.of, a.Kind) {
			fault(n.key, "bounds nothing of an agent of kind %s: leave it out%s", a.Kind, map[Kind]string{Research: ", and set the bounds of research in the configuration"}[a.Kind])
		}
	}
	switch {
	case f.Model == "":
	case a.Kind == Research:
		fault("model", "is not what answers the topics of an agent of kind research: leave it out; jobs of type research ask what routes.default names")
	case a.Kind == Memory:
		fault("model", "is not what an agent of kind memory asks: leave it out, and set memory.model in the configuration")
	}
	a.Budget = f.Budget
	a.Budget.Tokens = cmp.Or(a.Budget.Tokens, defaultBudget.Tokens)
	a.Budget.Time = cmp.Or(a.Budget.Time, defaultBudget.Time)
	a.Budget.ToolCalls = cmp.Or(a.Budget.ToolCalls, defaultBudget.ToolCalls)
	if a.Prompt = strings.TrimSpace(string(body)); a.Prompt == "" && a.Kind == Prompt {
		fault("", "the file has no text below its frontmatter: write there what the agent is to do")
	}
	for _, m := range placePattern.FindAllStringSubmatchIndex(string(body), -1) {
		if word := string(body[m[2]:m[3]]); !slices.Contains(places, word) {
			faults = append(faults, strict.Fault{Line: lines + bytes.Count(body[:m[0]], []byte{'\n'}) + 1,
				Text: fmt.Sprintf("{{%s}} is nothing that is filled in: use one of {{%s}}", word, strings.Join(places, "}}, {{"))})
		}
	}
	return a, faults
}

// cutFront parts a file into its frontmatter and what stands below it; lines is how many lines the frontmatter takes.
func cutFront(text []byte) (head, body []byte, lines int) {
	text = bytes.ReplaceAll(bytes.TrimPrefix(text, []byte("\ufeff")), []byte("\r\n"), []byte("\n"))
	rest, ok := bytes.CutPrefix(text, []byte("---\n"))
	if !ok {
		return nil, text, 0
	}
	if bytes.HasPrefix(rest, []byte("---\n")) {
		return nil, rest[4:], 2
	}
	end := bytes.Index(rest, []byte("\n---\n"))
	if end < 0 {
		if bytes.HasSuffix(rest, []byte("\n---")) {
			return rest[:len(rest)-3], nil, bytes.Count(text, []byte{'\n'}) + 1
		}
		return nil, text, 0
	}
	return rest[:end+1], rest[end+5:], bytes.Count(rest[:end+1], []byte{'\n'}) + 2
}

// fill puts what a run is about into a prompt.
func fill(prompt string, words map[string]string) string {
	return placePattern.ReplaceAllStringFunc(prompt, func(m string) string {
		return words[strings.TrimSpace(strings.Trim(m, "{}"))]
	})
}

// maxFile bounds an agent's file in bytes.
const maxFile = 64 << 10

// Load reads all agents: those built in, and over them those of the folders, of which later ones count more. A file that is wrong is a fault,
// and the others go on; what it would have stood in the place of is left out, so that nothing runs that the person believes to have changed.
func (s *Service) Load() (all []Agent, faults []FileFault) {
	found := map[string]Agent{}
	read := func(fsys fs.FS, where string, builtIn, inVault bool) {
		entries, err := fs.ReadDir(fsys, ".")
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				faults = append(faults, faultOf(where, strict.Faults{{Text: fmt.Sprintf("cannot be read: %v", err)}}))
			}
			return
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".md")
			if !ok || strings.HasPrefix(name, ".") || e.IsDir() {
				continue
			}
			path := where + "/" + e.Name()
			text, err := readFile(fsys, e.Name())
			if err == nil && len(text) == 0 { // "show NAME > agents/NAME.md" makes the file before there is a word in it
				continue
			}
			delete(found, name)
			if err != nil {
				faults = append(faults, faultOf(path, strict.Faults{{Text: err.Error()}}))
				continue
			}
			a, wrong := Parse(name, text, s.config.Zone, s.sinkNames())
			if len(wrong) > 0 {
				faults = append(faults, faultOf(path, wrong))
				continue
			}
			if a.Source, a.BuiltIn, a.inVault = path, builtIn, inVault; builtIn {
				a.Source = "built in"
			}
			found[name] = a
		}
	}
	if s.config.BuiltIn != nil {
		read(s.config.BuiltIn, "built in", true, false)
	}
	for _, f := range s.config.Folders {
		read(f.FS, f.Path, false, f.Vault)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[name])
	}
	return all, faults
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", err)
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a plain file: put the file itself there")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("has %d bytes, more than %d: shorten it", info.Size(), maxFile)
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	return text, nil
}

// Read reads the agents of a configuration where no Service runs.
func Read(c Config) ([]Agent, []FileFault) {
	if c.Zone == nil {
		c.Zone = time.Local
	}
	return (&Service{config: c}).Load()
}

// Find returns the agent of a name, ErrNotFound where there is none.
func (s *Service) Find(name string) (Agent, error) {
	all, faults := s.Load()
	for _, a := range all {
		if a.Name == name {
			return a, nil
		}
	}
	for _, f := range faults {
		if strings.HasSuffix(f.Path, "/"+name+".md") {
			return Agent{}, f
		}
	}
	return Agent{}, fmt.Errorf("%q: %w", name, ErrNotFound)
}
