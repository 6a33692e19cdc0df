package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/web"
)

// grace is how long a machine may be away before anybody is told: a restart is not an incident.
const grace = 30 * time.Second

// openAlerts opens what a person is told; nobody is where nobody passes it on.
func (a *app) openAlerts(ctx context.Context) (*alert.Service, error) {
	c := alert.Config{Log: a.log, Shared: a.db.Shared(), Hide: a.config.secrets(), Runbooks: a.config.Discord.Runbooks}
	names, all := a.config.sinks()
	for _, name := range names {
		c.Sinks = append(c.Sinks, all[name])
	}
	return alert.Open(ctx, a.db, c)
}

// secrets are all that the configuration points to, and the parts of them that are secret by themselves.
func (c *Config) secrets() (all []string) {
	hook := string(c.Discord.Webhook)
	all = append(all, hook, hook[strings.LastIndexByte(hook, '/')+1:], string(c.Auth.Password), string(c.Database))
	if u, err := url.Parse(string(c.Database)); err == nil && u.User != nil {
		password, _ := u.User.Password()
		all = append(all, password)
	}
	for _, p := range c.Providers {
		all = append(all, string(p.Key))
	}
	all = append(all, string(c.Tools.Search.Tavily), string(c.Library.Qdrant.Key))
	for _, s := range c.MCP.Servers {
		all = append(all, string(s.ClientSecret), string(s.ClientKey), string(s.IDPClientSecret))
		for _, secrets := range []map[string]Secret{s.Env, s.Headers} {
			for _, secret := range secrets {
				all = append(all, string(secret))
			}
		}
	}
	all = append(all, string(c.Alerts.Ntfy.Token), string(c.Alerts.Webhook.URL), string(c.Alerts.Webhook.Secret))
	if topic := string(c.Alerts.Ntfy.Topic); len(topic) >= 16 { // shorter ones are words that stand elsewhere too, on a server with a login
		all = append(all, topic)
	}
	for _, secret := range c.Traces.Headers {
		_, token, _ := strings.Cut(string(secret), " ") // of "Bearer TOKEN"
		all = append(all, string(secret), token)
	}
	for _, t := range c.Auth.Tokens {
		all = append(all, string(t))
	}
	for _, f := range findable {
		if p, ok := f.look(); ok {
			all = append(all, string(p.Key))
		}
	}
	return all
}

// changed tells of a machine at home that goes down or comes back.
func (a *app) changed(c route.Change) {
	key := "down/" + c.Provider
	if c.Up {
		a.alerts.End(key, c.Provider+" is back")
		return
	}
	a.alerts.Raise(alert.Incident{Key: key, Provider: c.Provider, Grace: grace,
		Text: fmt.Sprintf("%s is down since %s: %s. Work that needs it is held.", c.Provider, time.Now().Format("15:04:05"), c.Reason)})
}

// patient is how long a question in the chat may be held until anybody is told who does not look at it.
const patient = time.Minute

// busy tells of a provider's limit that holds a question in the chat.
func (a *app) busy(b *llm.BusyError) {
	if i, ok := alert.Exhausted(b); ok {
		i.Grace = max(i.Grace, patient)
		a.alerts.Raise(i)
	}
}

// heldFor returns the jobs that are held for a provider, for the incidents that count them; where there are none, a question in the chat
// keeps one open.
func heldFor(queue *jobs.Service, chats *chat.Service) func(context.Context, string, int) (map[int64]time.Time, error) {
	return func(ctx context.Context, provider string, most int) (map[int64]time.Time, error) {
		all, err := queue.Held(ctx, provider, most)
		if err != nil || len(all) > 0 || most > 1 {
			return all, err
		}
		if waits, err := chats.Waits(ctx, provider); err != nil || waits {
			return map[int64]time.Time{0: {}}, err
		}
		return all, nil
	}
}

// refused tells of a provider that refuses our key or wants money; with nil that it takes requests again.
func (a *app) refused(provider string, e *llm.Error) {
	key := "refused/" + provider
	switch {
	case e == nil:
		a.alerts.End(key, provider+" takes requests again")
	case e.Kind == llm.Spend:
		a.alerts.Raise(alert.Incident{Key: key, Text: fmt.Sprintf("%s wants money: %s. Nothing is asked of it again by itself: look at the account's balance and "+
			"spending limit, then retry what failed.", provider, strings.TrimRight(e.Message, "."))})
	default:
		a.alerts.Raise(alert.Incident{Key: key, Text: fmt.Sprintf("%s refuses its key: %s. Nothing is asked of it again by itself: put a valid key where "+
			"providers.%s.key points, restart, and retry what failed.", provider, strings.TrimRight(e.Message, "."), provider)})
	}
}

// forgetRemoved ends the incidents of providers that are not configured any more.
func (a *app) forgetRemoved(providers []route.Member) {
	known := map[string]bool{}
	for _, m := range providers {
		known[m.Name] = true
	}
	for _, x := range a.alerts.Open() {
		if _, name, ok := strings.Cut(x.Key, "/"); ok {
			name, _, _ = strings.Cut(name, "/")
			if !known[name] {
				a.alerts.End(x.Key, name+" is not configured any more")
			}
		}
	}
}

// teller says how those who pass alerts on are; nothing where nobody does.
func (a *app) teller() (all []web.Dependency) {
	faults := a.alerts.Faults()
	names, sinks := a.config.sinks()
	for _, name := range names {
		sink := sinks[name].Name()
		d := web.Dependency{Name: "alerts", State: route.Up, Says: sink + " takes them."}
		if len(names) > 1 {
			d.Name = "alerts by " + sink
		}
		if f, ok := faults[sink]; ok {
			d.State, d.Since, d.Says = route.Down, f.Since, f.Err.Error()
			d.Cure = "Look at the connection and at what is configured for " + sink + " (llm-runner alert test). What is to be told is kept until it works."
		}
		all = append(all, d)
	}
	return all
}

// untraced tells that traces are lost; with nil that they are taken again.
func (a *app) untraced(err error) {
	if err == nil {
		a.alerts.End("traces", "The receiver of traces takes them again")
		return
	}
	a.alerts.Raise(alert.Incident{Key: "traces", Text: "Traces are lost: " + err.Error() + ". Everything else goes on."})
}

// graceOfDatabase is how long PostgreSQL may be away before anybody is told: a restart is not an incident.
const graceOfDatabase = 10 * time.Second

// watchDatabase tells once that the database cannot be written, and once that it can. Of PostgreSQL it tells that it is away, and that it
// is back: from memory, and where several processes share it one of them does.
func (a *app) watchDatabase(ctx context.Context, work *engine.Engine) error {
	return a.db.Watch(ctx, func(t *db.Trouble) {
		switch {
		case !a.db.Shared():
		case t == nil:
			a.log.Info("PostgreSQL answers again")
			a.alerts.End("database", "PostgreSQL answers again")
			return
		default:
			a.log.Error("PostgreSQL does not answer", "error", t.Err)
			if work.First() {
				a.alerts.Raise(alert.Incident{Key: "database", Grace: graceOfDatabase, Text: fmt.Sprintf("%s since %s: %s. Answers under way go on, and so do programs that ask for one; new jobs and questions in the "+
					"chat are refused. %s", t.Says(), t.Since.Format("15:04:05"), strings.TrimRight(t.Err.Error(), "."), t.Cure())})
			}
			return
		}
		if t == nil {
			a.log.Info("the database can be written again")
			a.alerts.End("disk", "Saving works again")
			return
		}
		a.log.Error("the database cannot be written", "fault", t.Fault, "error", t.Err)
		a.alerts.Raise(alert.Incident{Key: "disk", Text: "Nothing can be saved: " + t.Says() + ". Answers go on and are kept in memory; new jobs are refused. " + t.Cure()})
	})
}
