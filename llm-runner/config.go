package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/internal/strict"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/usage"
)

// Config is what the operator wrote in runner.yaml. Every key is optional; runner.example.yaml shows them all.
type Config struct {
	Listen    string                    `yaml:"listen"`   // host:port; default 127.0.0.1:8080
	Hosts     []string                  `yaml:"hosts"`    // further names by which browsers may call this server
	Data      string                    `yaml:"data"`     // directory
	Database  Secret                    `yaml:"database"` // URL of a PostgreSQL database that several machines share; "": SQLite in Data
	Vault     VaultConfig               `yaml:"vault"`
	Library   LibraryConfig             `yaml:"library"`
	Providers map[string]ProviderConfig `yaml:"providers"`
	Routes    RoutesConfig              `yaml:"routes"`
	Jobs      JobsConfig                `yaml:"jobs"`
	Research  ResearchConfig            `yaml:"research"`
	Tools     ToolsConfig               `yaml:"tools"`
	Memory    MemoryConfig              `yaml:"memory"`
	Agents    AgentsConfig              `yaml:"agents"`
	MCP       MCPConfig                 `yaml:"mcp"`
	Discord   DiscordConfig             `yaml:"discord"`
	Alerts    AlertsConfig              `yaml:"alerts"`
	Traces    TracesConfig              `yaml:"traces"`
	Auth      AuthConfig                `yaml:"auth"`
	Prices    usage.Prices              `yaml:"prices"` // US dollars per million tokens

	path  string       // of the file; "" where there is none
	lines strict.Lines // where each key stands
	found bool         // no providers are configured: look for them

	// Warnings are faults that leave the rest of the house working: a provider whose key is missing, say.
	Warnings strict.Faults
}

// VaultConfig says where the owner's notes are.
type VaultConfig struct {
	Path string `yaml:"path"` // directory of notes; "" serves the handbook
	// Model writes the answers of the model vault: a name as callers use it; "" the default of routes, "quotes" nobody.
	Model string `yaml:"model"`
	// NeverSend are patterns of documents that no cloud provider sees (library.Privacy).
	NeverSend []string `yaml:"never_send"`
	Jobs      bool     `yaml:"jobs"` // whether files dropped into the queue folder are jobs; default true

	// The folders of jobs, below path; defaults: jobs.DefaultFolders.
	Queue     string `yaml:"queue"`
	Active    string `yaml:"active"`
	Completed string `yaml:"completed"`
	Failed    string `yaml:"failed"`
	Outputs   string `yaml:"outputs"`

	private library.Privacy
}

// folders are the folders of jobs in the vault.
func (v *VaultConfig) folders() *jobs.Folders {
	d := jobs.DefaultFolders
	return &jobs.Folders{Vault: v.Path, Queue: cmp.Or(v.Queue, d.Queue), Active: cmp.Or(v.Active, d.Active),
		Completed: cmp.Or(v.Completed, d.Completed), Failed: cmp.Or(v.Failed, d.Failed), Outputs: cmp.Or(v.Outputs, d.Outputs)}
}

// dropbox are the folders through which jobs come and go; nil: none do.
func (v *VaultConfig) dropbox() *jobs.Folders {
	if v.Path == "" || !v.Jobs {
		return nil
	}
	return v.folders()
}

// ProviderConfig is one machine or cloud API that answers.
type ProviderConfig struct {
	Kind        string        `yaml:"kind"`        // one of kinds
	URL         string        `yaml:"url"`         // default: the kind's own
	Key         Secret        `yaml:"key"`         // for cloud APIs
	Concurrency int           `yaml:"concurrency"` // requests at once; default 1 for ollama, 0 = unlimited for others
	Timeout     time.Duration `yaml:"timeout"`     // longest silence borne; default 5m
	Health      string        `yaml:"health"`      // path or URL that answers 2xx while the machine is up
	Limits      []LimitConfig `yaml:"limits"`      // rate limits as the provider's page states them; what it tells corrects them

	missing string // why the key that was configured is not there
}

// LimitConfig is one rate limit of a provider.
type LimitConfig struct {
	Dimension string `yaml:"dimension"` // one of dimensions
	Max       int64  `yaml:"max"`
	Model     string `yaml:"model"` // "" all models together
}

// dimensions of limits that can be configured.
var dimensions = []string{llm.RequestsPerMinute, llm.RequestsPerDay, llm.TokensPerMinute, llm.TokensPerDay, llm.InputTokensPerMinute, llm.OutputTokensPerMinute}

// RoutesConfig is the route table.
type RoutesConfig struct {
	Default RouteTarget            `yaml:"default"`
	Project string                 `yaml:"project"` // the provider that project mode insists on
	Models  map[string]RouteConfig `yaml:"models"`
}

// RouteTarget names a model on a provider.
type RouteTarget struct {
	Provider string `yaml:"provider"`
	Model    string `yaml:"model"`
}

// RouteConfig is one row of the route table.
type RouteConfig struct {
	Provider      string `yaml:"provider"`
	Model         string `yaml:"model"`          // default: the row's own name
	Fallback      string `yaml:"fallback"`       // another row
	Requires      string `yaml:"requires"`       // a provider
	Stream        string `yaml:"stream"`         // streamLive (default) or streamWhole
	RequiresDavas bool   `yaml:"requires_davas"` // the old name of "requires: davas"
}

// What RouteConfig.Stream can be.
const (
	streamLive  = "live"  // word by word, as it comes
	streamWhole = "whole" // in one go, when the answer is whole
)

// JobsConfig is about work that may wait.
type JobsConfig struct {
	Keep time.Duration `yaml:"keep"` // how long a job is kept after it ended; default keepJobs, 0 = for ever
}

// keepJobs is how long jobs that ended are kept where nothing is said: 90 days.
const keepJobs = 90 * 24 * time.Hour

// DiscordConfig says where alerts go.
type DiscordConfig struct {
	Webhook  Secret `yaml:"webhook"`
	Runbooks string `yaml:"runbooks"` // where alerts' links lead to; empty: docs/runbooks/ in the repository
}

// AlertsConfig says where alerts go besides Discord.
type AlertsConfig struct {
	Ntfy    NtfyConfig    `yaml:"ntfy"`
	Webhook WebhookConfig `yaml:"webhook"`
}

// NtfyConfig is a topic of an ntfy server.
type NtfyConfig struct {
	URL      string `yaml:"url"`   // of the server; default https://ntfy.sh
	Topic    Secret `yaml:"topic"` // "": nobody is told
	Token    Secret `yaml:"token"`
	Priority int    `yaml:"priority"` // 1 to 5; default the server's own
}

// WebhookConfig is an address of the operator's own.
type WebhookConfig struct {
	URL    Secret `yaml:"url"`    // "": nobody is told
	Secret Secret `yaml:"secret"` // signs what is sent
}

// TracesConfig says who is told what happens, span by span.
type TracesConfig struct {
	Endpoint string            `yaml:"endpoint"` // URL of an OTLP/HTTP receiver; "" nothing is traced
	Headers  map[string]Secret `yaml:"headers"`
	Content  bool              `yaml:"content"` // questions and answers too
	Sample   float64           `yaml:"sample"`  // the part of traces that is told; default 1
}

// AuthConfig opens the server to others than this machine.
type AuthConfig struct {
	Password Secret            `yaml:"password"` // people log in with it
	Tokens   map[string]Secret `yaml:"tokens"`   // programs send one as a bearer token; the name is for the log
	Decide   []string          `yaml:"decide"`   // names of tokens with which what waits for a person may be decided
}

// A Secret is a reference in the configuration, env:NAME or file:PATH, and the value it points to after Load.
type Secret string

// kinds are the provider kinds, with the URL each has by default ("" must be given).
var kinds = map[string]string{
	"ollama":    "http://127.0.0.1:11434",
	"openai":    "https://api.openai.com/v1",
	"gemini":    "https://generativelanguage.googleapis.com",
	"anthropic": "https://api.anthropic.com",
	"scripted":  "", // url is the script's path, from the configuration's folder
}

// Options are the flags that every command knows; they win over the file.
type Options struct {
	Config, Data, Listen, Vault string
}

// Load reads the configuration file, fills in defaults and resolves secrets. All faults are reported at once, as
// strict.Faults. A missing file is an error only when it was named.
func Load(o Options) (*Config, error) {
	data := cmp.Or(o.Data, defaultData())
	c := &Config{path: o.Config}
	if c.path == "" {
		c.path = filepath.Join(data, "runner.yaml")
	}
	doc, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Config == "":
		c.path = ""
	case err != nil:
		return nil, fmt.Errorf("read config: %w", err)
	}
	var faults strict.Faults
	c.Vault.Jobs, c.Jobs.Keep, c.Memory.On, c.Traces.Sample, c.Research = true, keepJobs, true, 1, usualResearch
	c.lines, faults = strict.Decode(doc, c)
	c.Data = cmp.Or(o.Data, expand(c.Data), data)
	c.Listen = cmp.Or(o.Listen, c.Listen, "127.0.0.1:8080")
	c.Vault.Path = cmp.Or(o.Vault, expand(c.Vault.Path))
	c.found = c.Providers == nil
	v := validator{c: c, faults: faults}
	v.database()
	v.check()
	if len(v.faults) > 0 {
		slices.SortStableFunc(v.faults, func(a, b strict.Fault) int { return cmp.Compare(a.Line, b.Line) })
		return nil, &ConfigError{Path: c.path, Faults: v.faults}
	}
	return c, nil
}

// A ConfigError is every fault of a configuration.
type ConfigError struct {
	Path   string
	Faults strict.Faults
}

func (e *ConfigError) Error() string {
	what := "the configuration"
	if e.Path != "" {
		what = e.Path
	}
	n := "1 fault"
	if len(e.Faults) > 1 {
		n = fmt.Sprintf("%d faults", len(e.Faults))
	}
	return fmt.Sprintf("%s has %s:\n  %s", what, n, strings.ReplaceAll(e.Faults.Error(), "\n", "\n  "))
}

// authenticated says that whoever comes has to show who they are.
func (c *Config) authenticated() bool { return c.Auth.Password != "" || len(c.Auth.Tokens) > 0 }

func defaultData() string {
	dir := os.Getenv("XDG_DATA_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "."
		}
		dir = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(dir, "llm-runner")
}

// expand replaces a leading ~/ by the home directory, as a shell would.
func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

type validator struct {
	c      *Config
	faults strict.Faults
}

func (v *validator) fault(key, format string, args ...any) {
	v.faults = append(v.faults, strict.Fault{Line: v.c.lines[key], Key: key, Text: fmt.Sprintf(format, args...)})
}

func (v *validator) check() {
	c := v.c
	v.secret("auth.password", &c.Auth.Password)
	if c.Auth.Password != "" && len(c.Auth.Password) < 8 {
		v.fault("auth.password", "is shorter than 8 characters: choose a longer one")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Auth.Tokens)) {
		token := c.Auth.Tokens[name]
		v.secret("auth.tokens."+name, &token)
		if c.Auth.Tokens[name] = token; token != "" && len(token) < 16 {
			v.fault("auth.tokens."+name, "is shorter than 16 characters: make one with openssl rand -hex 24")
		}
	}
	for i, name := range c.Auth.Decide {
		if _, ok := c.Auth.Tokens[name]; !ok {
			v.fault(fmt.Sprintf("auth.decide[%d]", i), "%q is not one of auth.tokens: name one of them", name)
		}
	}
	if host, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		v.fault("listen", "%q is not host:port: write for example 127.0.0.1:8080", c.Listen)
	} else if !loopback(host) && !c.authenticated() {
		v.fault("listen", "%q is not this machine alone, so others could use it: set auth.password (and auth.tokens "+
			"for programs), or listen on 127.0.0.1", c.Listen)
	}
	if c.Jobs.Keep < 0 {
		v.fault("jobs.keep", "%s is below zero: write how long a job is kept after it ended, such as 2160h, or 0 for ever", c.Jobs.Keep)
	}
	if why, literal := resolve(&c.Discord.Webhook); literal {
		v.fault("discord.webhook", "%s", why)
	} else if why != "" {
		v.warn("discord.webhook", why+"; until then nobody is alerted")
	}
	if w := string(c.Discord.Webhook); w != "" {
		if u, err := url.Parse(w); err != nil || u.Scheme != "https" && !loopback(u.Hostname()) || u.Host == "" {
			v.fault("discord.webhook", "does not hold an https URL: copy the webhook's URL from Discord's channel settings")
		}
	}
	if r := c.Discord.Runbooks; r != "" {
		if u, err := url.Parse(r); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			v.fault("discord.runbooks", "%q is no URL: write where docs/runbooks/ can be read, such as https://gitlab.com/example/homelab/-/blob/main/docs/runbooks/", r)
		}
	}
	v.alerts()
	v.traces()
	if c.Vault.Path != "" {
		if st, err := os.Stat(c.Vault.Path); err != nil || !st.IsDir() {
			v.fault("vault.path", "%q is not a directory: name the folder that holds your notes", c.Vault.Path)
		}
	}
	private, faults := library.NewPrivacy(c.Vault.NeverSend)
	for _, err := range faults {
		v.fault("vault.never_send", "%v", err)
	}
	c.Vault.private = private
	if m := c.Vault.Model; m == library.Model || m == graph.Name || strings.HasPrefix(m, library.Model+"/") {
		v.fault("vault.model", "%q is the notes themselves: name a model that writes, or %s for the passages alone", m, library.Quotes)
	}
	for _, f := range c.Vault.folders().Faults() {
		v.fault("vault."+f.Field, "%s", f.Text)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		p := c.Providers[name]
		v.provider("providers."+name, name, &p)
		c.Providers[name] = p
	}
	v.routes()
	v.library()
	v.tools()
	v.memory()
	v.agents()
	v.research()
	for _, name := range slices.Sorted(maps.Keys(c.Prices)) {
		if p := c.Prices[name]; p.Input < 0 || p.Output < 0 || p.CachedInput < 0 {
			v.fault("prices."+name, "a price below zero: write US dollars per million tokens")
		}
	}
}

// database checks where everything is kept. A URL may stand in the file as long as it holds no password.
func (v *validator) database() {
	d := &v.c.Database
	if literal := string(*d); strings.HasPrefix(literal, "postgres://") || strings.HasPrefix(literal, "postgresql://") {
		u, err := url.Parse(literal)
		if err == nil && (u.Query().Has("password") || hasPassword(u.User)) {
			*d = ""
			v.fault("database", "holds a password: put the URL in an environment variable and write env:NAME, or in a file and write file:PATH")
			return
		}
	} else if why, literal := resolve(d); literal {
		v.fault("database", "is neither a URL nor a reference: write postgres://USER@HOST:5432/NAME, env:NAME or file:PATH; without it SQLite is used")
		return
	} else if why != "" {
		v.fault("database", "%s", why)
		return
	}
	if *d != "" {
		if err := db.CheckPostgresURL(string(*d)); err != nil {
			v.fault("database", "%v", err)
		}
	}
}

func hasPassword(u *url.Userinfo) bool {
	_, has := u.Password()
	return has
}

// noDatabase is the fault of a configuration for a worker.
func noDatabase(c *Config) strict.Faults {
	return strict.Faults{{Line: c.lines["database"], Key: "database", Text: "is missing: SQLite has one owner, and workers share jobs " +
		"with a server over PostgreSQL; write database: env:DATABASE_URL here and in the server's configuration (postgres://USER:PASSWORD@HOST:5432/NAME)"}}
}

func (v *validator) provider(key, name string, p *ProviderConfig) {
	if name == "vault" || name == graph.Name || strings.ContainsAny(name, "/ ") || name == "" {
		v.fault(key, "%q cannot be a provider's name: use letters, digits and dashes (vault and research are built in)", name)
	}
	fallback, known := kinds[p.Kind]
	if !known {
		v.fault(key+".kind", "%q is not a kind: use one of %s", p.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
		return
	}
	if why, literal := resolve(&p.Key); literal {
		v.fault(key+".key", "%s", why)
	} else if why != "" {
		p.missing = why
		v.warn(key+".key", why+"; until then "+name+" cannot answer")
	}
	p.URL = cmp.Or(p.URL, fallback)
	switch u, err := url.Parse(p.URL); {
	case p.Kind == "scripted":
		if p.URL = expand(strings.TrimPrefix(p.URL, "file://")); p.URL != "" && !filepath.IsAbs(p.URL) && v.c.path != "" {
			p.URL = filepath.Join(filepath.Dir(v.c.path), p.URL)
		}
	case err != nil: // the provider says so itself
	case u.User != nil || u.RawQuery != "":
		v.fault(key+".url", "holds a user name or a query: put the key in %s.key", key)
	case p.URL == fallback && p.Key == "" && p.Kind != "ollama" && v.c.lines[key+".key"] == 0:
		v.fault(key+".key", "is missing: write for example env:%s_API_KEY", strings.ToUpper(p.Kind))
	}
	if p.Concurrency < 0 {
		v.fault(key+".concurrency", "%d is below zero: write how many requests may run at once, or 0 for no limit", p.Concurrency)
	}
	for i, l := range p.Limits {
		at := fmt.Sprintf("%s.limits[%d]", key, i)
		if !slices.Contains(dimensions, l.Dimension) {
			v.fault(at+".dimension", "%q is not a dimension: use one of %s", l.Dimension, strings.Join(dimensions, ", "))
		}
		if l.Max < 1 {
			v.fault(at+".max", "%d is not above zero: write how many the provider allows", l.Max)
		}
	}
	for _, err := range p.faults() {
		field, text, _ := strings.Cut(err.Error(), ": ")
		v.fault(key+"."+field, "%s", text)
	}
	if h := p.Health; h != "" && !strings.HasPrefix(h, "/") && !strings.HasPrefix(h, "http://") && !strings.HasPrefix(h, "https://") {
		v.fault(key+".health", "%q is neither a path nor a URL: write for example /api/version", h)
	}
}

func (v *validator) routes() {
	r := &v.c.Routes
	v.target("routes.default", r.Default.Provider)
	if (r.Default.Provider == "") != (r.Default.Model == "") {
		v.fault("routes.default", "needs both provider and model")
	}
	if r.Default.Provider == "" && !v.c.found && v.c.lines["routes.default"] == 0 {
		v.warn("routes.default", "is missing, so the notes (vault) answer unknown names: name a provider and a model")
	}
	v.target("routes.project", r.Project)
	for _, name := range slices.Sorted(maps.Keys(r.Models)) {
		row, key := r.Models[name], "routes.models."+name
		if row.RequiresDavas {
			if row.Requires != "" && row.Requires != "davas" {
				v.fault(key+".requires_davas", "contradicts requires: %q; keep requires and remove this line", row.Requires)
			}
			row.Requires = "davas"
		}
		row.Provider = cmp.Or(row.Provider, row.Requires)
		row.Model = cmp.Or(row.Model, name)
		r.Models[name] = row
		if row.Provider == "" {
			v.fault(key+".provider", "is missing: name the provider that has this model")
		}
		v.target(key+".provider", row.Provider)
		v.target(key+".requires", row.Requires)
		if row.Requires != "" && row.Requires != row.Provider && v.cloud(row.Provider) {
			v.fault(key+".requires", "%q contradicts provider %q, which is a cloud API: remove one", row.Requires, row.Provider)
		}
		if _, ok := r.Models[row.Fallback]; row.Fallback != "" && (!ok || row.Fallback == name) {
			v.fault(key+".fallback", "%q is not another row of routes.models; rows: %s", row.Fallback,
				strings.Join(slices.Sorted(maps.Keys(r.Models)), ", "))
		}
		if row.Stream != "" && row.Stream != streamLive && row.Stream != streamWhole {
			v.fault(key+".stream", "%q is neither live (word by word, the default) nor whole (when the answer is whole)", row.Stream)
		}
	}
}

// target checks that a provider that a route names exists.
func (v *validator) target(key, provider string) {
	if provider == "" || provider == "vault" || provider == graph.Name {
		return
	}
	if _, ok := v.c.Providers[provider]; ok {
		return
	}
	if v.c.found && slices.ContainsFunc(findable, func(f finding) bool { return f.name == provider }) {
		return // it may appear by itself
	}
	v.fault(key, "there is no provider %q; providers: %s", provider,
		strings.Join(append(slices.Sorted(maps.Keys(v.c.Providers)), "vault"), ", "))
}

func (v *validator) cloud(provider string) bool {
	p, ok := v.c.Providers[provider]
	return ok && p.cloud()
}

// cloud says whether a provider is a cloud API with rate limits: every kind but those at home, unless it has a health
// check, which only one's own machines have.
func (p ProviderConfig) cloud() bool {
	return p.Kind != "ollama" && p.Kind != "scripted" && p.Health == ""
}

// secret resolves a secret without which it is not safe to start.
func (v *validator) secret(key string, s *Secret) {
	if why, _ := resolve(s); why != "" {
		v.fault(key, "%s", why)
	}
}

func (v *validator) warn(key, text string) {
	v.c.Warnings = append(v.c.Warnings, strict.Fault{Line: v.c.lines[key], Key: key, Text: text})
}

// resolve replaces a reference by what it points to, or says why it cannot; literal means that the secret itself stood
// there. Nothing it says holds a secret.
func resolve(s *Secret) (why string, literal bool) {
	ref := string(*s)
	*s = ""
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		if *s = Secret(strings.TrimSpace(os.Getenv(name))); *s == "" {
			return fmt.Sprintf("the environment variable %s is not set: set it, or remove the line", name), false
		}
		return "", false
	}
	if path, ok := strings.CutPrefix(ref, "file:"); ok {
		value, err := os.ReadFile(expand(path))
		if *s = Secret(strings.TrimSpace(string(value))); err != nil || *s == "" {
			return fmt.Sprintf("the file %s cannot be read or is empty: put the secret in it, or remove the line", path), false
		}
		return "", false
	}
	if ref != "" {
		return "holds the secret itself: put it in an environment variable and write env:NAME, or in a file and write file:PATH", true
	}
	return "", false
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
