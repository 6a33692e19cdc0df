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
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpclient"
	"home.arpa/lab/llm-runner/internal/toolbox/sandbox"
	"home.arpa/lab/llm-runner/internal/toolbox/vault"
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

	fetch := browse.FetchConfig{Allow: c.Fetch.Allow, PDF: readPDF, Keep: a.keepPage}
	searcher := browse.NewSearcher(browse.SearchConfig{SearXNG: c.Search.SearXNG, Tavily: string(c.Search.Tavily)})
	tools := []toolbox.Tool{
		searcher.Tool(),
		sandbox.New(sandbox.Config{Python: c.Code.Python, Timeout: c.Code.Timeout, Memory: c.Code.Memory << 20}).Tool(),
		a.search("library_search", "", "Finds passages in the person's notes and in pages that were fetched before, best first, with where each stands."),
		a.search("memory_recall", library.Memory, "Finds what is remembered about the person."),
		a.rememberTool(),
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
	a.inquiries.Web = a.outside(searcher, a.fetcher)
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
		c.Servers = append(c.Servers, mcpclient.ServerConfig{Name: name, Command: s.Command, Env: plain(s.Env), URL: s.URL, Headers: plain(s.Headers), OAuth: s.OAuth,
			ClientID: s.ClientID, ClientSecret: string(s.ClientSecret), Metadata: s.Metadata})
	}
	return c
}

// keepPage puts a page that was fetched into the library.
func (a *app) keepPage(ctx context.Context, p browse.Page) error {
	return a.library.Put(ctx, library.Web, library.Document{Path: p.URL, Title: p.Title, Text: []byte(p.Text), Time: p.Fetched})
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
