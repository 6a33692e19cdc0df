package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/usage"
)

//go:embed agents/*.md
var agentFiles embed.FS

// builtIn are the agents of the program.
func builtIn() fs.FS {
	sub, err := fs.Sub(agentFiles, "agents")
	if err != nil {
		panic(err) // they are part of the program
	}
	return sub
}

func builtInAgents() (names []string) {
	all, err := fs.Glob(builtIn(), "*.md")
	if err != nil {
		panic(err)
	}
	for _, name := range all {
		names = append(names, strings.TrimSuffix(name, ".md"))
	}
	return names
}

// agentFolders are where the person's agents are; what is in the vault counts more.
func (c *Config) agentFolders() []agent.Folder {
	all := []agent.Folder{{Path: filepath.Join(c.Data, "agents"), FS: os.DirFS(filepath.Join(c.Data, "agents"))}}
	if c.Vault.Path != "" {
		all = append(all, agent.Folder{Path: c.Agents.folder(), FS: os.DirFS(filepath.Join(c.Vault.Path, filepath.FromSlash(c.Agents.folder()))), Vault: true})
	}
	return all
}

// agents makes the service of agents, which work calls.
func (a *app) agents(ctx context.Context, work *engine.Engine, queue *jobs.Service) (*agent.Service, error) {
	c := a.config
	_, sinks := c.sinks()
	x := agent.Config{BuiltIn: builtIn(), On: c.Agents.On, Folders: c.agentFolders(), Zone: c.Agents.zone(), Vault: c.Vault.Path, Notes: c.Agents.Notes, Daily: c.Agents.Daily,
		Topics: c.Agents.Topics, Sinks: sinks, Hide: a.hide, Ask: a.router, Box: a.box, Cost: c.Prices.Cost, Lane: a.router.Lane, Targets: a.targets, OfVault: ofVault, Asks: a.asks, Writer: a.connected, Alerts: a.alerts, Traces: a.traces, Keep: c.Jobs.Keep, Log: a.log,
		Facts: a.facts(queue), Desk: a.desk(queue), Learn: a.learnt}
	return agent.New(ctx, a.db, work, x)
}

// ofVault says that a tool works on the vault: on its files, or on what is known of them.
func ofVault(tool string) bool {
	return strings.HasPrefix(tool, "vault_") || tool == "library_search" || tool == "progress"
}

// targets are the models that may answer a request.
func (a *app) targets(req llm.Request) (all []agent.Target) {
	for _, t := range a.router.Targets(req) {
		all = append(all, agent.Target{Provider: t.Provider, Model: t.Model})
	}
	return all
}

// learnt has facts about the person learnt, for the agent memory.
func (a *app) learnt(ctx context.Context, run string) (string, agent.Spent, error) {
	report, err := a.memory.Learn(ctx, run)
	spent := agent.Spent{Tokens: report.Input + report.Output, MicroUSD: report.MicroUSD}
	if err == nil { // it may have gone on after somebody was busy
		report, err = a.memory.Whole(ctx, run, report)
	}
	return report.Sentence(), spent, err
}

// hide takes out of a text what the configuration keeps secret.
func (a *app) hide(text string) string {
	for _, secret := range a.config.secrets() {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "(hidden)")
		}
	}
	return text
}

// mostListed bounds what a briefing looks at.
const mostListed = 500

// facts are what briefings tell of.
func (a *app) facts(queue *jobs.Service) agent.Sources {
	private := func(path string) bool { return a.library.NeverSent(library.Notes, path) }
	src := agent.Sources{
		Changed: func(ctx context.Context, since time.Time) ([]agent.Changed, error) {
			all, err := a.library.Touched(ctx, since, mostListed)
			var out []agent.Changed
			for _, t := range all {
				if strings.HasPrefix(t.Path, a.config.Agents.folder()+"/") {
					continue // what agents are told is no news
				}
				if note, err := a.library.Note(ctx, t.Path); err == nil && agent.Generated(note.Text) {
					continue // a daily note that the person has not written into
				}
				out = append(out, agent.Changed{Path: t.Path, Title: t.Title, At: t.At, Private: private(t.Path)})
			}
			return out, err
		},
		Tasks: func(ctx context.Context) ([]agent.Passage, error) {
			all, err := a.library.Holding(ctx, "[ ]", 10*mostListed)
			if err != nil {
				return nil, err
			}
			touched, err := a.library.Touched(ctx, time.Unix(0, 0), mostListed) // of the others nobody asks which is newer
			at := map[string]time.Time{}
			for _, t := range touched {
				at[t.Path] = t.At
			}
			out := make([]agent.Passage, len(all))
			for i, p := range all {
				out[i] = agent.Passage{Path: p.Path, Line: p.Line, Text: p.Quote, At: at[p.Path], Private: private(p.Path)}
			}
			return out, err
		},
		Projects: func(ctx context.Context) ([]agent.Project, error) { return a.standing(ctx, private) },
		Work: func(ctx context.Context, since time.Time) ([]agent.Work, error) {
			held, err1 := queue.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Held}, Limit: mostListed})
			ended, err2 := queue.Jobs(ctx, jobs.Filter{States: []jobs.State{jobs.Done, jobs.Failed}, Since: since, Limit: mostListed})
			var out []agent.Work
			for _, j := range append(held, ended...) {
				out = append(out, agent.Work{ID: j.ID, Title: j.Title, State: string(j.State), Reason: j.Reason})
			}
			return out, errors.Join(err1, err2)
		},
		Used: a.used,
	}
	if a.config.Agents.Metrics != "" || a.config.Agents.Kuma != "" {
		src.Backups = a.backups
	}
	if a.config.Vault.Path == "" { // the handbook's tasks are nobody's
		src.Changed, src.Tasks, src.Projects = nil, nil, nil
	}
	if a.searcher.Missing() == "" {
		src.Search = func(ctx context.Context, query string) (out []agent.Hit, err error) {
			return out, a.box.Do(ctx, toolbox.Scope{Source: "agent"}, "web_search", map[string]string{"query": query, "since": "day"}, func(ctx context.Context) (toolbox.Result, error) {
				all, err := a.searcher.Search(ctx, query, "", "day", 5)
				for _, h := range all {
					out = append(out, agent.Hit{Title: h.Title, URL: h.URL, Text: h.Snippet})
				}
				return browse.Shown(all), err
			})
		}
	}
	src.Feed = func(ctx context.Context, url string) (out []agent.Headline, err error) {
		return out, a.box.Do(ctx, toolbox.Scope{Source: "agent"}, "fetch_url", map[string]string{"url": url}, func(ctx context.Context) (toolbox.Result, error) {
			all, err := a.fetcher.Feed(ctx, url)
			for _, e := range all {
				out = append(out, agent.Headline{Title: e.Title, URL: e.URL, At: e.Published})
			}
			return toolbox.Result{Text: fmt.Sprintf("A feed of %d entries.", len(all))}, err
		})
	}
	return src
}

// standing is how far the projects are.
func (a *app) standing(ctx context.Context, private func(string) bool) ([]agent.Project, error) {
	board, err := a.projects().Board(ctx)
	if err != nil {
		return nil, err
	}
	var out []agent.Project
	for _, row := range board.Rows {
		if n := len(out); n == 0 || out[n-1].Path != row.Path {
			p := agent.Project{Title: row.Project, Path: row.Path, Private: private(row.Path)}
			p.Done, p.Total = board.Count(row.Path)
			out = append(out, p)
		}
		p := &out[len(out)-1]
		for _, t := range row.Phase.Tasks {
			if p.Next == "" && row.State == "open" && !t.Done && !t.Dropped {
				p.Next = t.Text
			}
		}
	}
	return out, nil
}

// used is what each provider was used for, and how full the fullest of its limits is.
func (a *app) used(ctx context.Context, since time.Time) ([]agent.Used, error) {
	days, err := usage.Days(ctx, a.db, since)
	if err != nil {
		return nil, err
	}
	sums := map[string]usage.Totals{}
	for _, d := range days {
		t := sums[d.Provider]
		t.Requests += d.Totals.Requests
		t.Errors += d.Totals.Errors
		t.InputTokens += d.Totals.InputTokens
		t.OutputTokens += d.Totals.OutputTokens
		t.CostMicroUSD += d.Totals.CostMicroUSD
		sums[d.Provider] = t
	}
	var out []agent.Used
	for _, r := range a.router.Reports() {
		t := sums[r.Name]
		u := agent.Used{Provider: r.Name, Requests: t.Requests, Errors: t.Errors, Tokens: t.InputTokens + t.OutputTokens, MicroUSD: t.CostMicroUSD}
		fullest := 0.0
		for _, q := range r.Quota {
			most, known := q.Max.Get()
			left, told := q.Remaining.Get()
			if !known || !told || most <= 0 {
				continue
			}
			if full := 1 - float64(left)/float64(most); full >= fullest && full > 0.005 {
				fullest = full
				u.Limit = fmt.Sprintf("%.0f %% of %s", 100*full, strings.ReplaceAll(q.Dimension, "_", " "))
				u.LimitIsReached = left <= 0
			}
		}
		out = append(out, u)
	}
	return out, nil
}

// backups is what homelab's metrics and Uptime Kuma's status page say.
func (a *app) backups(ctx context.Context, now time.Time) (wrong []string, ok int, err error) {
	if dir := a.config.Agents.Metrics; dir != "" {
		files, err := filepath.Glob(filepath.Join(dir, "homelab-*.prom"))
		if err != nil {
			return nil, 0, err
		}
		var all strings.Builder
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, 0, fmt.Errorf("read metrics: %w", err)
			}
			all.Write(append(text, '\n'))
		}
		if wrong, ok = agent.Metrics(all.String(), now); len(wrong) == 0 && ok == 0 {
			wrong = append(wrong, fmt.Sprintf("no metrics of backups are in %s: is it the folder that homelab writes homelab-*.prom to, and is it mounted here?", dir))
		}
	}
	if page := a.config.Agents.Kuma; page != "" {
		more, up, kerr := a.kuma(ctx, page)
		if wrong, ok = append(wrong, more...), ok+up; kerr == nil && len(more) == 0 && up == 0 {
			wrong = append(wrong, fmt.Sprintf("uptime Kuma's status page %s shows no monitor that is up or down", page))
		}
		if kerr != nil {
			wrong = append(wrong, kerr.Error())
		}
	}
	return wrong, ok, nil
}

// kuma reads a status page of Uptime Kuma.
func (a *app) kuma(ctx context.Context, address string) (wrong []string, ok int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return nil, 0, err
	}
	slug := strings.TrimPrefix(u.Path, "/status/")
	get := func(path string) ([]byte, error) {
		v := *u
		v.Path = path
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.String(), nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, fmt.Errorf("uptime Kuma's status page cannot be read: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("uptime Kuma's status page %s cannot be read: %s", address, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	}
	page, err := get("/api/status-page/" + slug)
	if err != nil {
		return nil, 0, err
	}
	beats, err := get("/api/status-page/heartbeat/" + slug)
	if err != nil {
		return nil, 0, err
	}
	return agent.Kuma(page, beats)
}

// desk has topics researched by jobs.
func (a *app) desk(queue *jobs.Service) agent.Desk {
	if a.config.Vault.Path == "" {
		return agent.Desk{}
	}
	return agent.Desk{
		Read: func(ctx context.Context, path string) ([]byte, error) {
			note, err := a.library.Note(ctx, path)
			return note.Text, err
		},
		Submit: func(ctx context.Context, topic, key string) (int64, error) {
			j, _, err := queue.Submit(ctx, jobs.Spec{Type: jobs.Research, Prompt: topic, Priority: 7}, key)
			return j.ID, err
		},
		Result: func(ctx context.Context, id int64) (agent.Finding, error) {
			j, err := queue.Job(ctx, id)
			if err != nil {
				return agent.Finding{}, err
			}
			f := agent.Finding{Ended: j.State.Ended(), Answer: j.Answer, Sources: j.Citations, Waits: j.Reason}
			f.Spent = agent.Spent{Tokens: j.Usage.Input.Or(0) + j.Usage.Output.Or(0), MicroUSD: j.Cost.Or(0)}
			if f.Ended && j.State != jobs.Done {
				if f.Failed = j.Reason; f.Failed == "" {
					f.Failed = string(j.State)
				}
			}
			return f, nil
		},
		Private: func(path string) bool { return a.library.NeverSent(library.Notes, path) },
	}
}

// shownAgents is what /api/agents answers.
type shownAgents struct {
	Agents []agent.Listed    `json:"agents"`
	Faults []agent.FileFault `json:"faults"`
}

func decodeInto(raw json.RawMessage, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}
