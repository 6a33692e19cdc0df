package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/incident"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/services"
	"home.arpa/lab/internal/discord"
	"home.arpa/lab/internal/kuma"
	"home.arpa/lab/internal/ntfy"
)

// A machine is this one: its configuration and the catalog.
type machine struct {
	site.Config
	path    string // of its configuration
	catalog []catalog.Service
	patience
	proxy string // the way to the repositories for the machine of a drill; empty: it has one
}

// patience is how long is waited for what does not come.
type patience struct {
	Retry   time.Duration     // restic, for a lock
	Locks   restic.LockPolicy // before a lock is held to be dead
	Bounds  backup.Bounds     // of other programs
	Read    time.Duration     // to read one repository, so that both fit into the five minutes between two watches
	Catchup time.Duration     // between two tries to read a repository after a boot
	Push    time.Duration     // between two tries to push
	Tell    time.Duration     // to tell Discord, or ntfy
}

// usual is the patience of a machine at home.
var usual = patience{Retry: 15 * time.Minute, Locks: restic.Patience, Bounds: backup.Usual, Read: time.Minute, Catchup: 2 * time.Minute, Push: 2 * time.Second, Tell: 45 * time.Second}

// patient is the key under which the context of a test carries another patience.
type patient struct{}

func patienceOf(ctx context.Context) patience {
	if p, ok := ctx.Value(patient{}).(patience); ok {
		return p
	}
	return usual
}

func (c *call) machine() (*machine, error) {
	config, err := site.Load(c.config)
	if err != nil {
		return nil, usageError{err.Error()}
	}
	all, err := loadCatalog(config.Services)
	if err != nil {
		return nil, usageError{err.Error()}
	}
	return &machine{Config: config, path: c.config, catalog: all, patience: c.patience}, nil
}

// loadCatalog reads the descriptions in a folder, or the built-in ones.
func loadCatalog(dir string) ([]catalog.Service, error) {
	if dir == "" {
		return catalog.Load(services.FS)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("read catalog: %s is no folder: name one that holds NAME/service.yaml for each service", dir)
	}
	all, err := catalog.Load(os.DirFS(dir))
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("read catalog: %s holds no service: name a folder that holds NAME/service.yaml for each", dir)
	}
	return all, err
}

// repo opens a tier's repository with one of its keys.
func (m *machine) repo(tier, key string) (restic.Repo, error) {
	r, ok := m.Repositories[tier]
	if !ok {
		return restic.Repo{}, fmt.Errorf("open the %s repository: the configuration has none: add repositories.%s", tier, tier)
	}
	k, ok := r.Keys[key]
	if !ok {
		return restic.Repo{}, fmt.Errorf("open the %s repository: this machine has no %s key: add repositories.%s.keys.%s, or run it where the key is", tier, key, tier, key)
	}
	env, err := k.Environ()
	if err != nil {
		return restic.Repo{}, err
	}
	return restic.Repo{Binary: m.Restic, URL: r.URL, PasswordFile: r.Password, Env: env, Cache: filepath.Join(m.Cache, tier), RetryLock: m.patience.Retry}, nil
}

// monitor pushes the state of something to its monitor in Uptime Kuma, where there is one. How long it takes is bounded.
func (m *machine) push(ctx context.Context, monitor string, up bool, text string, took time.Duration) error {
	if m.Kuma.URL == "" {
		return nil
	}
	secret, err := site.Secret(m.Kuma.Secret)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 45*time.Second)
	defer cancel()
	if !up {
		text = withRunbook(text, m.Runbooks, monitor)
	}
	return kuma.Pusher{URL: m.Kuma.URL, Wait: m.Push}.Push(ctx, kuma.Token([]byte(secret), monitor), up, text, took)
}

// A listener is somebody who is told, with the book of what it has been told: one that is away does not keep another from hearing, or have it
// hear twice.
type listener struct {
	book    string
	deliver func(context.Context, string) error
}

// listeners are who is told: Discord, ntfy, or both. The first has the book even where nobody is told.
func (m *machine) listeners() ([]listener, error) {
	all := []listener{{book: "incidents.json"}}
	hook, err := site.Secret(m.Discord)
	if err == nil && hook != "" {
		all[0].deliver = discord.New(hook).Deliver
	}
	if m.Ntfy.Topic == "" {
		return all, err
	}
	topic, terr := site.Secret(m.Ntfy.Topic)
	token, kerr := site.Secret(m.Ntfy.Token)
	c := ntfy.Config{URL: cmp.Or(m.Ntfy.URL, "https://ntfy.sh"), Topic: topic, Token: token, Title: "homelab: " + m.Host}
	if err := errors.Join(err, terr, kerr); err != nil {
		return all, err
	}
	if err := c.Validate(); err != nil {
		return all, fmt.Errorf("tell by ntfy: %w", err)
	}
	return append(all, listener{"incidents-ntfy.json", ntfy.New(c).Deliver}), nil
}

// note writes troubles ("": well) into the books of incidents and tells everybody what is new to them.
func (m *machine) note(ctx context.Context, troubles map[string]string) error {
	ctx = context.WithoutCancel(ctx)
	all, failed := m.listeners()
	told := make(chan error, len(all))
	for _, l := range all {
		go func() { told <- m.noteIn(ctx, l, troubles) }()
	}
	for range all {
		failed = errors.Join(failed, <-told)
	}
	return failed
}

func (m *machine) noteIn(ctx context.Context, l listener, troubles map[string]string) error {
	book, err := incident.Open(ctx, filepath.Join(m.State, l.book))
	if err != nil {
		return err
	}
	defer book.Close()
	for key, text := range troubles {
		book.Note(key, withRunbook(text, m.Runbooks, key), time.Now())
	}
	if l.deliver == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.Tell)
	defer cancel()
	return book.Tell(ctx, l.deliver)
}

// way is what a restore's environment needs where there is no other way to the repositories.
func (m *machine) way() []string {
	if m.proxy == "" {
		return nil
	}
	return []string{"HTTP_PROXY=" + m.proxy, "HTTPS_PROXY=" + m.proxy, "NO_PROXY=localhost,127.0.0.1"}
}

// tell pushes and notes one thing; what cannot be told is said on stderr, and does not change how the work went.
func (c *call) tell(ctx context.Context, m *machine, monitor, trouble, summary string, took time.Duration) {
	if err := m.push(ctx, monitor, trouble == "", summary, took); err != nil {
		c.say(err.Error())
	}
	if err := m.note(ctx, map[string]string{monitor: trouble}); err != nil {
		c.say(err.Error())
	}
}
