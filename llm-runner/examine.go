package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/internal/ntfy"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/trace"
)

func examineData(c *Config) Finding {
	f := Finding{What: "data", Status: "ok", Text: c.Data}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return Finding{"data", "wrong", err.Error(), "make the directory writable for this user, or name another with --data"}
	}
	probe, err := os.CreateTemp(c.Data, ".doctor-*")
	if err != nil {
		return Finding{"data", "wrong", err.Error(), "make the directory writable for this user, or name another with --data"}
	}
	probe.Close()
	os.Remove(probe.Name())
	var st syscall.Statfs_t
	if err := syscall.Statfs(c.Data, &st); err == nil {
		free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // their types differ between systems
		f.Text += fmt.Sprintf(", %.1f GB free", float64(free)/1e9)
		if free < lowDisk {
			f.Status, f.Cure = "wrong", "free some space, or name a directory on another disk with --data"
		}
	}
	return f
}

// lowDisk is where the doctor warns: a database of chats and an index need room to be copied before a migration.
const lowDisk = 1 << 30

func examineDatabase(ctx context.Context, c *Config) Finding {
	d, err := readDB(ctx, c)
	if err != nil && c.Database != "" {
		return Finding{"database", "wrong", err.Error(), "start PostgreSQL, or correct database: in the configuration"}
	}
	if err != nil {
		return Finding{"database", "wrong", err.Error(), "check the directory's owner and mode"}
	}
	if d == nil {
		return Finding{What: "database", Status: "ok", Text: "none yet; it is made at the first start"}
	}
	defer d.Close()
	if err := d.Check(ctx); err != nil {
		return Finding{"database", "wrong", err.Error(), "stop the server and llm-runner restore your newest snapshot, or a copy beside the file (" + filepath.Base(d.Path()) + ".before-*)"}
	}
	if d.Shared() {
		return Finding{What: "database", Status: "ok", Text: "PostgreSQL at " + d.Path()}
	}
	return Finding{What: "database", Status: "ok", Text: d.Path()}
}

func examineVault(c *Config) Finding {
	if c.Vault.Path == "" {
		return Finding{What: "vault", Status: "note", Text: "no notes are named, so the handbook is served", Cure: "set vault.path or --vault to your folder of Markdown"}
	}
	if _, err := library.Dir(c.Vault.Path); err != nil {
		return Finding{"vault", "wrong", err.Error(), "set vault.path to a folder that this user can read"}
	}
	return Finding{What: "vault", Status: "ok", Text: c.Vault.Path}
}

func examineProvider(ctx context.Context, c *Config, m route.Member) Finding {
	f := Finding{What: "provider " + m.Name, Status: "ok"}
	lister, ok := m.Provider.(llm.Lister)
	if !ok {
		f.Text = m.Kind
		return f
	}
	models, err := lister.Models(ctx)
	if err == nil {
		f.Text = fmt.Sprintf("%s, %d models", m.Kind, len(models))
		if missing := missingModels(c, m.Name, models); len(missing) > 0 {
			f.Status, f.Text = "wrong", f.Text+"; the routes name models that it does not have: "+strings.Join(missing, ", ")
			f.Cure = "correct routes, or fetch the model"
			if m.Kind == "ollama" {
				f.Cure = "ollama pull " + missing[0]
			}
		}
		return f
	}
	f.Status, f.Text = "wrong", err.Error()
	switch llm.KindOf(err) {
	case llm.Auth:
		f.Cure = "check the key of providers." + m.Name + " (env:NAME or file:PATH)"
	case llm.Spend:
		f.Cure = "look at the account's balance and spending limit"
	case llm.Quota, llm.Overload:
		f.Status, f.Cure = "note", "nothing: it passes by itself"
	default:
		f.Cure = "is the machine on, and is the URL right? The rest of the house works meanwhile"
	}
	if m.Found && !m.Cloud {
		f.Status, f.Text, f.Cure = "note", "no Ollama answers: "+err.Error(), "start Ollama, or set OLLAMA_HOST; without one the notes are still searched"
	}
	return f
}

// missingModels returns the models that routes expect of a provider and that it does not offer. To Ollama
// "x" and "x:latest" are one.
func missingModels(c *Config, provider string, models []llm.ModelInfo) []string {
	has := map[string]bool{}
	for _, m := range models {
		has[m.Name], has[m.Name+":latest"] = true, true
	}
	var missing []string
	add := func(p, model string) {
		if p == provider && !has[model] {
			has[model] = true
			missing = append(missing, model)
		}
	}
	add(c.Routes.Default.Provider, c.Routes.Default.Model)
	for _, r := range c.Routes.Models {
		add(r.Provider, r.Model)
	}
	return missing
}

// examineWebhook reads the webhook's description, which posts nothing.
func examineWebhook(ctx context.Context, url string) Finding {
	name, err := discord.New(url).Describe(ctx)
	var refused *discord.RefusedError
	switch {
	case errors.As(err, &refused):
		return Finding{"discord", "wrong", err.Error(), "copy the webhook's URL again from the channel's settings"}
	case err != nil:
		return Finding{"discord", "wrong", err.Error(), "check the network; alerts are kept until Discord answers"}
	}
	return Finding{What: "discord", Status: "ok", Text: fmt.Sprintf("the webhook %q exists; llm-runner alert test posts to it", name)}
}

func examineNtfy(ctx context.Context, c *Config) Finding {
	s := c.Alerts.Ntfy.settings()
	if err := ntfy.New(s).Healthy(ctx); err != nil {
		return Finding{"ntfy", "wrong", err.Error(), "check alerts.ntfy.url and the network; alerts are kept until it answers"}
	}
	return Finding{What: "ntfy", Status: "ok", Text: s.URL + " is well; llm-runner alert test says whether it takes messages for the topic"}
}

// examineSearch searches with SearXNG once, which costs nothing; a search of Tavily would.
func examineSearch(ctx context.Context, c *Config) Finding {
	url := c.Tools.Search.SearXNG
	if err := browse.NewSearcher(browse.SearchConfig{SearXNG: url}).Probe(ctx); err != nil {
		return Finding{"search", "wrong", fmt.Sprintf("SearXNG at %s: %v", url, err), "mend it; until then Tavily is asked where tools.search.tavily is set"}
	}
	return Finding{What: "search", Status: "ok", Text: "SearXNG at " + url + " answers searches in JSON"}
}

func examineTraces(ctx context.Context, c *Config) Finding {
	if err := trace.Probe(ctx, c.Traces.settings()); err != nil {
		return Finding{"traces", "wrong", err.Error(), "check traces.endpoint and traces.headers; everything else works without"}
	}
	return Finding{What: "traces", Status: "ok", Text: c.Traces.Endpoint + " takes spans"}
}

// examineAgents reads the files of agents.
func examineAgents(c *Config) Finding {
	all := agentsOf(c)
	if len(all.Faults) == 0 {
		return Finding{What: "agents", Status: "ok", Text: fmt.Sprintf("%d files", len(all.Agents))}
	}
	var wrong []string
	for _, f := range all.Faults {
		wrong = append(wrong, f.Error())
	}
	return Finding{"agents", "wrong", strings.Join(wrong, "; "), "mend the lines that are named; the other agents go on"}
}

func examineListen(c *Config) Finding {
	if bell, ok := running(c.Data); ok {
		return Finding{What: "server", Status: "ok", Text: fmt.Sprintf("running at %s (process %d)", bell.URL, bell.PID)}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return Finding{"server", "wrong", err.Error(), "stop what listens there, or choose another address with --listen"}
	}
	l.Close()
	return Finding{What: "server", Status: "note", Text: "not running; " + c.Listen + " is free", Cure: "llm-runner serve"}
}
