package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/internal/ntfy"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/trace"
)

var doctorCommand = command{
	name: "doctor", args: "[flags]", summary: "check the configuration, every provider and the disk, and say the cure",
	help: `Checks, in this order: the configuration, the data directory and its disk, the database, the notes, every provider (it asks
for the list of models, which costs nothing), the Discord webhook, SearXNG, the files of agents and the address to listen on. Each finding that is not
well comes with its cure. Nothing is changed.

Examples:
  llm-runner doctor
  llm-runner doctor --config /etc/llm-runner/runner.yaml --json

Exit codes: 0 all is well, 1 something is wrong, 2 the configuration is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		fs.StringVar(&c.Listen, "listen", "", "`ADDR` that serve would listen on")
		return func(ctx context.Context) error {
			config, err := Load(c.Options)
			var faults *ConfigError
			if err != nil && !errors.As(err, &faults) {
				return err
			}
			findings := configFindings(config, faults)
			if config != nil {
				findings = append(findings, examine(ctx, config)...)
			}
			ok := true
			for _, f := range findings {
				ok = ok && f.Status != "wrong"
			}
			if *asJSON {
				if err := c.printJSON(map[string]any{"ok": ok, "findings": findings}); err != nil {
					return err
				}
			} else {
				c.printFindings(findings)
			}
			switch {
			case faults != nil:
				return exitError(exitUsage)
			case !ok:
				return exitError(exitFailed)
			}
			return nil
		}
	},
}

// A Finding is one thing that the doctor looked at. Status is "ok", "note" (works, but look) or "wrong".
type Finding struct {
	What   string `json:"what"`
	Status string `json:"status"`
	Text   string `json:"text"`
	Cure   string `json:"cure,omitempty"`
}

func configFindings(c *Config, faults *ConfigError) []Finding {
	var all []Finding
	if faults != nil {
		for _, f := range faults.Faults {
			all = append(all, Finding{What: "configuration", Status: "wrong", Text: f.String()})
		}
		return all
	}
	text := "no file; the defaults apply"
	if c.path != "" {
		text = c.path
	}
	all = append(all, Finding{What: "configuration", Status: "ok", Text: text})
	for _, w := range c.Warnings {
		all = append(all, Finding{What: "configuration", Status: "wrong", Text: w.String()})
	}
	return all
}

// examine looks at everything that a valid configuration names.
func examine(ctx context.Context, c *Config) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	all := []Finding{examineData(c), examineDatabase(ctx, c), examineVault(c)}
	providers, err := members(c, nil, nil)
	if err != nil {
		return append(all, Finding{What: "providers", Status: "wrong", Text: err.Error()})
	}
	found := make([]Finding, len(providers)-2) // the last two answer from the notes
	var wg sync.WaitGroup
	for i := range found {
		wg.Go(func() { found[i] = examineProvider(ctx, c, providers[i]) })
	}
	wg.Wait()
	all = append(all, found...)
	if c.Discord.Webhook != "" {
		all = append(all, examineWebhook(ctx, string(c.Discord.Webhook)))
	}
	if c.Alerts.Ntfy.Topic != "" {
		all = append(all, examineNtfy(ctx, c))
	}
	if c.Alerts.Webhook.URL != "" {
		all = append(all, Finding{What: "webhook", Status: "ok", Text: "alerts are posted to it; llm-runner alert test says whether it takes them"})
	}
	if c.Traces.Endpoint != "" {
		all = append(all, examineTraces(ctx, c))
	}
	if c.Tools.Search.SearXNG != "" {
		all = append(all, examineSearch(ctx, c))
	}
	return append(all, examineAgents(c), examineListen(c))
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

func examineNtfy(ctx context.Context, c *Config) Finding {
	s := c.Alerts.Ntfy.settings()
	if err := ntfy.New(s).Healthy(ctx); err != nil {
		return Finding{"ntfy", "wrong", err.Error(), "check alerts.ntfy.url and the network; alerts are kept until it answers"}
	}
	return Finding{What: "ntfy", Status: "ok", Text: s.URL + " is well; llm-runner alert test says whether it takes messages for the topic"}
}

func examineTraces(ctx context.Context, c *Config) Finding {
	if err := trace.Probe(ctx, c.Traces.settings()); err != nil {
		return Finding{"traces", "wrong", err.Error(), "check traces.endpoint and traces.headers; everything else works without"}
	}
	return Finding{What: "traces", Status: "ok", Text: c.Traces.Endpoint + " takes spans"}
}

// examineSearch searches with SearXNG once, which costs nothing; a search of Tavily would.
func examineSearch(ctx context.Context, c *Config) Finding {
	url := c.Tools.Search.SearXNG
	if err := browse.NewSearcher(browse.SearchConfig{SearXNG: url}).Probe(ctx); err != nil {
		return Finding{"search", "wrong", fmt.Sprintf("SearXNG at %s: %v", url, err), "mend it; until then Tavily is asked where tools.search.tavily is set"}
	}
	return Finding{What: "search", Status: "ok", Text: "SearXNG at " + url + " answers searches in JSON"}
}

// lowDisk is where the doctor warns: a database of chats and an index need room to be copied before a migration.
const lowDisk = 1 << 30

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
		free := int64(st.Bavail) * st.Bsize
		f.Text += fmt.Sprintf(", %.1f GB free", float64(free)/1e9)
		if free < lowDisk {
			f.Status, f.Cure = "wrong", "free some space, or name a directory on another disk with --data"
		}
	}
	return f
}

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

func (c *call) printFindings(all []Finding) {
	mark := map[string]string{"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
	for _, f := range all {
		fmt.Fprintf(c.stdout, "%s  %-20s %s\n", mark[f.Status], f.What, f.Text)
		if f.Cure != "" {
			fmt.Fprintf(c.stdout, "%28s-> %s\n", "", f.Cure)
		}
	}
}
