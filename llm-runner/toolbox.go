package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpclient"
	"home.arpa/lab/llm-runner/internal/toolbox/sandbox"
	"home.arpa/lab/llm-runner/internal/toolbox/vault"
	"home.arpa/lab/llm-runner/internal/web"
)

// openTools fills the toolbox, and puts the loop that uses it before the router.
func (a *app) openTools(ctx context.Context) (err error) {
	c := a.config.Tools
	if a.box, err = toolbox.Open(ctx, a.db, toolbox.Config{Traces: a.traces, Log: a.log}); err != nil {
		return err
	}
	a.asker = direct{a.router, loop.New(a.router, a.box, loop.Limits{Steps: c.Limits.Steps, Tokens: c.Limits.Tokens, Time: c.Limits.Time})}
	a.writeNote = func(string, string) error {
		return errors.New("there is no vault to save it in: set vault.path in the configuration")
	}

	a.servers = mcpclient.New(a.mcpServers())

	fetch := browse.FetchConfig{Allow: c.Fetch.Allow, Read: pageReader(), Keep: a.keepPage, Kept: a.keptPage}
	a.searcher = browse.NewSearcher(browse.SearchConfig{SearXNG: c.Search.SearXNG, Tavily: string(c.Search.Tavily), Told: a.searched})
	tools := []toolbox.Tool{
		a.searcher.Tool(),
		sandbox.New(sandbox.Config{Python: c.Code.Python, Timeout: c.Code.Timeout, Memory: c.Code.Memory << 20}).Tool(),
		a.search("library_search", "", "Finds passages in the person's notes and in pages that were fetched before, best first, with where each stands."),
		a.search("memory_recall", library.Memory, "Finds what is remembered about the person."),
		a.rememberTool(),
		a.progressTool(),
	}
	if a.config.Vault.Path != "" {
		v := vault.New(vault.Config{Path: a.config.Vault.Path, Versions: filepath.Join(a.config.Data, "versions"),
			Closed: append(a.config.Vault.folders().Below(), a.config.Agents.folder()),
			Hidden: func(path string) bool { return a.library.NeverSent(library.Notes, path) }})
		tools = append(tools, v.Tools()...)
		a.writeNote = v.Put
		folder := cmp.Or(c.Fetch.Folder, "web")
		fetch.Save = func(_ context.Context, p browse.Page) (string, error) {
			host := ""
			if u, err := url.Parse(p.URL); err == nil {
				host = u.Hostname()
			}
			return v.Save(folder, cmp.Or(p.Title, p.URL), host, p.URL, p.Author, p.Text, p.Published, p.Fetched)
		}
	}
	a.fetcher = browse.NewFetcher(fetch)
	a.inquiries.Web = a.outside(a.searcher, a.fetcher)
	return a.box.Add(append(tools, a.fetcher.Tool())...)
}

// mcpServers are the configured servers whose tools models may use.
func (a *app) mcpServers() mcpclient.Config {
	c := mcpclient.Config{Box: a.box, Tokens: filepath.Join(a.config.Data, "mcp"), Public: "http://" + a.config.Listen, Version: version, Log: a.log}
	if len(a.config.Hosts) > 0 {
		c.Public = "https://" + a.config.Hosts[0]
	}
	plain := func(all map[string]Secret) map[string]string {
		out := map[string]string{}
		for key, value := range all {
			out[key] = string(value)
		}
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(a.config.MCP.Servers)) {
		s := a.config.MCP.Servers[name]
		key, _ := mcpclient.ParseKey([]byte(s.ClientKey)) // nil: there is none; one that is wrong is a fault of the configuration
		c.Servers = append(c.Servers, mcpclient.ServerConfig{Name: name, Command: s.Command, Env: plain(s.Env), URL: s.URL, Headers: plain(s.Headers), OAuth: s.OAuth,
			ClientID: s.ClientID, ClientSecret: string(s.ClientSecret), Metadata: s.Metadata, Grant: s.Grant, Issuer: s.Issuer, ClientKey: key, TokenFile: expand(s.TokenFile), DPoP: s.DPoP,
			IDP: mcpclient.IDP{Issuer: s.IDP, ClientID: s.IDPClientID, ClientSecret: string(s.IDPClientSecret)}})
	}
	return c
}

// keepPage puts a page that was fetched into the library, with what is known of it as frontmatter; a PDF has pages instead, whose places count.
func (a *app) keepPage(ctx context.Context, p browse.Page) error {
	d := library.Document{Path: p.URL, Title: p.Title, URL: cmp.Or(p.Canonical, p.URL), Time: p.Fetched, Pages: p.Pages, Remarks: p.Remarks}
	if p.Kind == "pdf" {
		d.Format = extract.PDF
		d.Text = []byte(p.Text)
		return a.library.Put(ctx, library.Web, d)
	}
	var b strings.Builder
	b.WriteString("---\n")
	for _, line := range [][2]string{{"title", p.Title}, {"author", p.Author}, {"site", p.Site}, {"date", day(p.Published)}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", line[0], strconv.Quote(strings.ToValidUTF8(line[1], "\uFFFD")))
		}
	}
	b.WriteString(frontEnd + p.Text)
	d.Text = []byte(b.String())
	return a.library.Put(ctx, library.Web, d)
}

// frontEnd stands between the frontmatter of a page and its text.
const frontEnd = "---\n\n"

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}

// keptPage is a page as keepPage kept it.
func (a *app) keptPage(ctx context.Context, url string) (browse.Page, bool) {
	d, err := a.library.Document(ctx, library.Web, url)
	if err != nil {
		return browse.Page{}, false
	}
	p := browse.Page{URL: url, Canonical: d.URL, Title: d.Title, Text: string(d.Text), Pages: d.Pages, Remarks: d.Remarks}
	if p.Fetched, err = a.library.Added(ctx, library.Web, url); err != nil {
		return browse.Page{}, false
	}
	if front, ok := strings.CutPrefix(p.Text, "---\n"); ok && !d.Extracted {
		front, text, ok := strings.Cut(front, frontEnd)
		if !ok { // it was kept by an earlier version
			return p, true
		}
		p.Text = text
		for line := range strings.Lines(front) {
			key, quoted, _ := strings.Cut(strings.TrimSpace(line), ": ")
			value, err := strconv.Unquote(quoted)
			switch {
			case err != nil:
			case key == "author":
				p.Author = value
			case key == "site":
				p.Site = value
			case key == "date":
				p.Published, _ = time.Parse(time.DateOnly, value) // the zero time, where it is none
			}
		}
	}
	return p, true
}

// searched tells once that a search engine fails, and that it answers again.
func (a *app) searched(engine string, err error) {
	if err == nil {
		a.alerts.End("search/"+engine, engine+" answers again")
		return
	}
	a.log.Warn("search the web", "engine", engine, "error", err)
	a.alerts.Raise(alert.Incident{Key: "search " + engine, Grace: 10 * time.Minute, Text: fmt.Sprintf("%s does not search: %v", engine, err)})
}

// searches says how the search engines were when they were asked last.
func (a *app) searches() (all []web.Dependency) {
	for _, s := range a.searcher.Standing() {
		d := web.Dependency{Name: s.Engine, State: route.Unknown, Says: "It was not asked yet.", Since: s.Since}
		switch {
		case s.Err != nil:
			d.State, d.Says, d.Cure = route.Down, s.Err.Error(), "llm-runner doctor asks it. Until it answers, the others are asked, and models are told where none does."
		case !s.Since.IsZero():
			d.State, d.Says = route.Up, "It answers searches."
		}
		all = append(all, d)
	}
	return all
}

// unwanted has calls wait for nobody any more whose work has ended, and ends the alert once none waits.
func (a *app) unwanted(ctx context.Context, wanted func(ctx context.Context, run string) (bool, error)) error {
	waits, err := a.box.Waits(ctx)
	if err != nil {
		return err
	}
	left, gone := len(waits), map[string]bool{}
	for _, c := range waits {
		if c.Run == "" { // whoever called waits for it
			continue
		}
		if !gone[c.Run] {
			still, err := wanted(ctx, c.Run)
			if err != nil {
				return err
			}
			if still {
				continue
			}
			if err := a.box.Withdraw(ctx, c.Run); err != nil {
				return err
			}
			gone[c.Run] = true
		}
		left--
	}
	if left == 0 {
		a.alerts.End("approval", "No tool waits for your word any more")
	}
	return nil
}

// callers says whether the work still goes on that a call of a tool was made for.
func callers(queue *jobs.Service, chats *chat.Service, agents *agent.Service) func(ctx context.Context, run string) (bool, error) {
	return func(ctx context.Context, run string) (bool, error) {
		var id int64
		if n, _ := fmt.Sscanf(run, "agent-%d", &id); n == 1 {
			r, err := agents.Run1(ctx, id)
			if errors.Is(err, agent.ErrNoRun) {
				return false, nil
			}
			return err == nil && !r.State.Ended(), err
		}
		if strings.HasPrefix(run, "once-") { // nobody asks for that again
			return false, nil
		}
		return wanted(queue, chats)(ctx, run)
	}
}

// sweep looks once a minute for calls that nobody wants any more, until ctx ends.
func (a *app) sweep(ctx context.Context, wanted func(ctx context.Context, run string) (bool, error)) error {
	look := time.NewTicker(time.Minute)
	defer look.Stop()
	for {
		if err := a.unwanted(ctx, wanted); err != nil && ctx.Err() == nil {
			a.log.Warn("look at calls that wait", "error", err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// asks says whether a person still has to decide about a run: about a call of a tool, or about a plan.
func (a *app) asks(ctx context.Context, run string) (bool, error) {
	of := func(name string) bool { return name == run || strings.HasPrefix(name, run+"-") }
	calls, err := a.box.Waits(ctx)
	if err != nil || slices.ContainsFunc(calls, func(c toolbox.Call) bool { return of(c.Run) }) {
		return true, err
	}
	plans, err := a.inquiries.Store.Waits(ctx)
	return slices.ContainsFunc(plans, func(r graph.RunRow) bool { return of(r.Key) }), err
}

// decided has whoever waits for a decision go on, and ends the alert about it.
func (a *app) decided(queue *jobs.Service, chats *chat.Service, agents *agent.Service) (func(toolbox.Call), func(context.Context, *sql.Tx, toolbox.Call) error) {
	return func(c toolbox.Call) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			var err error
			switch {
			case strings.HasPrefix(c.Run, "job-"):
				err = queue.Back(ctx, loop.Approval)
			case strings.HasPrefix(c.Run, "agent-"):
				err = agents.Back(ctx, loop.Approval)
			default:
				err = chats.Decided(ctx, c.Run)
			}
			if err != nil {
				a.log.Warn("wake what waits for a decision", "run", c.Run, "error", err) // it looks for itself before long
			}
			if waits, err := a.box.Waits(ctx); err == nil && len(waits) == 0 {
				a.alerts.End("approval", "No tool waits for your word any more")
			}
		}, func(ctx context.Context, tx *sql.Tx, c toolbox.Call) error {
			return a.alerts.RaiseIn(ctx, tx, alert.Incident{Key: "approval", Provider: loop.Approval, Grace: 2 * time.Minute,
				Text: fmt.Sprintf("%s waits for your word: say yes or no on the Tools page. What asked for it is held until then.", c.Tool)})
		}
}

// search returns a tool that searches the library, or one collection of it.
func (a *app) search(name, collection, description string) toolbox.Tool {
	type arguments struct {
		Query   string `json:"query" jsonschema:"what to look for: words, \"phrases\", tag:name, path:folder/"`
		Results int    `json:"results,omitempty" jsonschema:"how many passages, 1 to 20; 6 if left out"`
	}
	t := toolbox.Tool{Name: name, Outside: true, Policy: toolbox.Allow, Description: description}
	return toolbox.Make(t, func(ctx context.Context, _ toolbox.Call, in arguments) (toolbox.Result, error) {
		n := cmp.Or(in.Results, 6)
		if n < 1 || n > 20 {
			return toolbox.Result{}, fmt.Errorf("results: %d is not between 1 and 20", n)
		}
		hits, err := a.library.Find(ctx, library.Request{Query: in.Query, Limit: n, Filter: library.Filter{Collection: collection}})
		if err != nil {
			return toolbox.Result{}, err
		}
		found := len(hits) // who reads the results is not known here, and they are kept: what is never sent stays out of them
		hits = slices.DeleteFunc(hits, func(h library.Hit) bool { return a.library.NeverSent(h.Collection, h.Path) })
		var b strings.Builder
		if n := found - len(hits); n > 0 {
			fmt.Fprintf(&b, "%d of the passages found are never sent to models, and left out.\n\n", n)
		}
		if len(hits) == 0 {
			b.WriteString("Nothing was found.")
		}
		for i, h := range hits {
			fmt.Fprintf(&b, "%d. %s (%s, lines %d to %d)\n%s\n\n", i+1, cmp.Or(h.Title, h.Path), h.Path, h.Line, h.EndLine, strings.TrimSpace(h.Quote))
		}
		return toolbox.Result{Text: b.String()}, nil
	})
}
