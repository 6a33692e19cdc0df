package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/progress"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpserver"
	"home.arpa/lab/llm-runner/internal/web"
)

var serveCommand = command{
	name: "serve", args: "[flags]", summary: "serve the web page and the APIs",
	help: `Serves the chat page, the pages for usage and health, and the APIs of OpenAI, Anthropic and Ollama. Works without any
configuration: the notes (or the handbook) answer by themselves, Ollama on this machine and API keys in the environment are
found. It listens on this machine only, unless auth is configured.

Examples:
  llm-runner serve
  llm-runner serve --vault ~/notes --listen 127.0.0.1:9000
  llm-runner serve --config /etc/llm-runner/runner.yaml --data /var/lib/llm-runner

Exit codes: 0 after Ctrl-C or SIGTERM, 1 failed, 2 the configuration is wrong (every fault is listed).`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		fs.StringVar(&c.Listen, "listen", "", "`ADDR` to listen on (default 127.0.0.1:8080)")
		verbose := fs.Bool("verbose", false, "log every request")
		return func(ctx context.Context) error {
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if *verbose {
				level = slog.LevelDebug
			}
			return c.serve(ctx, config, slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level})))
		}
	},
}

// patience is how long answers under way may go on after the signal to stop.
const patience = 10 * time.Second

// serve assembles, starts, waits, and stops in reverse. The page answers before any provider has been asked anything.
func (c *call) serve(ctx context.Context, config *Config, log *slog.Logger) error {
	l, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("%w: stop what listens there, or choose another address with --listen", err)
	}
	defer l.Close()

	back := make(chan string, 64) // machines that have come back, for what is held for them
	a, err := assemble(ctx, config, log, func(c route.Change) {
		came(back, c)
	})
	if err != nil {
		return err
	}
	defer a.close()

	work, queue, err := a.queue(ctx, engine.Config{Log: log, Grace: patience})
	if err != nil {
		return err
	}
	closeWork := sync.OnceFunc(func() {
		if err := work.Close(patience + 2*time.Second); err != nil {
			log.Error("stop jobs", "error", err)
		}
	})
	defer closeWork()
	chats, err := chat.New(ctx, a.db, a.asker, chat.Config{Cost: config.Prices.Cost, Recall: a.recall, Lane: a.router.Lane, Busy: a.busy, Asks: a.asks, Deleted: a.deleted, Engine: work, Traces: a.traces, Log: log})
	if err != nil {
		return err
	}
	agents, err := a.agents(ctx, work, queue)
	if err != nil {
		return err
	}
	a.box.Tell(a.decided(queue, chats, agents))
	token := "" // for this user's own commands, where anybody else has to show one
	if config.authenticated() {
		token = rand.Text()
	}
	var inbox *jobs.Inbox
	if config.Vault.dropbox() != nil {
		inbox = jobs.NewInbox(queue)
	}
	projects := a.projects()
	pages, err := a.pages(chats, queue, inbox, projects, agents)
	if err != nil {
		return err
	}
	gate, err := a.guard(token)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	gateway.New(gateway.Config{Router: a.router, Jobs: queue, Wait: 20 * time.Second, Traces: a.traces}).Register(mux)
	mux.Handle("/mcp", gateway.MCP(mcpserver.New(mcpserver.Config{Box: a.box, Version: version, Log: log}).Handlers()))
	mux.Handle("/", pages)
	server := guard.Server(config.Listen, gate.Wrap(mux))
	server.RegisterOnShutdown(pages.Drain)
	bell := doorbell{URL: "http://" + reachable(l.Addr()), Token: token}
	if err := a.owner.announce(bell); err != nil {
		return err
	}

	a.alerts.SetHeld(heldFor(queue, chats))
	parts := []func(context.Context) error{a.servers.Run, a.router.Run, a.library.Run, a.alerts.Run, work.Run, queue.Run, projects.Run, a.memory.Run, agents.Run,
		func(ctx context.Context) error { return a.goOn(ctx, callers(queue, chats, agents)) },
		func(ctx context.Context) error { return a.sweep(ctx, callers(queue, chats, agents)) },
		func(ctx context.Context) error { return a.watchDatabase(ctx, work) },
		func(ctx context.Context) error { return a.wake(ctx, queue, chats, agents, back) }}
	if inbox != nil {
		parts = append(parts, inbox.Run)
	}
	a.start(parts...)
	if err := work.Launch(); err != nil {
		return err
	}

	// Chats and jobs stop together with the doors: they still need the router and the ledger, which stop after them.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, closeWork)()
	chatsDone := make(chan error, 1)
	go func() { chatsDone <- chats.Run(ctx) }()
	defer slim(a.trim)()
	log.Info("serving", "url", bell.URL, "data", config.Data, "database", a.db.Path(), "version", version)
	err = serveUntil(ctx, l, server, patience)
	stop()
	return errors.Join(err, <-chatsDone)
}

// queue opens the durable engine and the jobs that it calls; nothing runs until it is launched.
func (a *app) queue(ctx context.Context, c engine.Config) (*engine.Engine, *jobs.Service, error) {
	work, err := a.openEngine(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	queue, err := jobs.New(ctx, a.db, work, a.asker, jobs.Config{Folders: a.config.Vault.dropbox(), Cost: a.config.Prices.Cost, Lane: a.router.Lane,
		Turn: a.router.Turn, Pace: (&pacer{db: a.db, router: a.router, log: a.log}).pace, Keep: a.config.Jobs.Keep, Report: a.report, Asks: a.asks, Alerts: a.alerts, Traces: a.traces, Log: a.log})
	if err != nil {
		return nil, nil, errors.Join(err, work.Close(patience))
	}
	work.Inherits(a.ledger.Adopt)
	work.Inherits(a.book.Adopt)
	work.Inherits(a.box.Adopt)
	work.Inherits(a.inquiries.Store.Adopt)
	return work, queue, nil
}

// came tells wake that a machine has come back.
func came(back chan<- string, c route.Change) {
	if c.Up {
		offer(back, c.Provider)
	}
}

// offer sends without waiting: what is held looks for itself before long.
func offer(names chan<- string, name string) {
	select {
	case names <- name:
	default:
	}
}

// roomEvery is how often at most it is looked whether there is room for what is held for a provider's limits.
const roomEvery = time.Second

// wake has the jobs and the turns of chats go on that are held for a machine which has come back, and the jobs that are held
// for a limit which has room earlier than was thought.
func (a *app) wake(ctx context.Context, queue *jobs.Service, chats *chat.Service, agents *agent.Service, back <-chan string) error {
	settled := map[string]bool{}
	look := time.NewTimer(roomEvery)
	look.Stop()
	defer look.Stop()
	for {
		var err error
		select {
		case name := <-back:
			err = errors.Join(queue.Back(ctx, name), chats.Back(ctx, name), agents.Back(ctx, name))
		case name := <-a.settled:
			if len(settled) == 0 {
				look.Reset(roomEvery)
			}
			settled[name] = true
		case <-look.C:
			for name := range settled {
				err = errors.Join(err, queue.Room(ctx, name))
			}
			clear(settled)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("wake what is held", "error", err) // it looks for itself before long
		}
	}
}

// guard makes what every request has to pass.
func (a *app) guard(token string) (*guard.Guard, error) {
	c := guard.Config{Listen: a.config.Listen, Hosts: a.config.Hosts, KeyFile: filepath.Join(a.config.Data, "cookie.key"),
		Password: string(a.config.Auth.Password), Tokens: map[string]string{}, Deciders: a.config.Auth.Decide, Log: a.log}
	if token != "" {
		c.Tokens["local"] = token
	}
	for name, t := range a.config.Auth.Tokens {
		c.Tokens[name] = string(t)
	}
	return guard.New(c)
}

// example is a question that the handbook answers; none where the person has notes.
func example(c *Config) string {
	if c.Vault.Path != "" {
		return ""
	}
	return "What happens when a machine is down?"
}

// pages makes the pages for people.
func (a *app) pages(chats *chat.Service, queue *jobs.Service, inbox *jobs.Inbox, projects *progress.Service, agents *agent.Service) (*web.Site, error) {
	dependencies := a.dependencies
	if inbox != nil {
		dependencies = func() []web.Dependency { return append(a.dependencies(), dropped(inbox)) }
	}
	return web.New(web.Config{Chats: chats, Jobs: queue, Library: a.library, Memory: a.memory, Progress: projects, Agents: agents, Inquiries: a.inquiries, Proceed: func(run int64) { a.proceed <- run },
		Planned: a.planned(queue, chats), SaveReport: a.saveReport,
		Tools: a.box, Servers: a.servers.Servers, Login: a.servers.Login, Router: a.router, Ledger: a.ledger, DB: a.db, Traces: a.traces, Version: version, Log: a.log,
		Note: func(ctx context.Context, path string) ([]byte, error) {
			note, err := a.library.Note(ctx, path)
			return note.Text, err
		},
		NoModel:      func() bool { return !a.connected() },
		Example:      example(a.config),
		LogOut:       a.config.Auth.Password != "",
		Dependencies: dependencies,
		Incidents:    a.alerts.Open,
		Undelivered:  a.alerts.Undelivered,
	})
}

// dependencies are what is needed besides providers and database.
func (a *app) dependencies() []web.Dependency {
	return slices.Concat([]web.Dependency{a.notes(), a.meant()}, a.teller(), a.receiver(), a.searches())
}

// notes says how the library is.
func (a *app) notes() web.Dependency {
	s := a.library.Status()
	d := web.Dependency{Name: "notes", State: route.Up, Says: s.Sentence()}
	if s.Error != "" {
		d.State, d.Says, d.Cure = route.Down, s.Error, "is the folder of vault.path there, and may this user read it?"
	}
	return d
}

// dropped says how the folders are through which jobs come and go.
func dropped(inbox *jobs.Inbox) web.Dependency {
	d := web.Dependency{Name: "vault folders", State: route.Up, Says: "files dropped into the queue folder become jobs"}
	if fault, since := inbox.Fault(); fault != "" {
		d.State, d.Says, d.Since, d.Cure = route.Down, fault, since, "jobs go on, and files wait; it is tried again every few seconds"
	}
	return d
}

// slim keeps the program small on a small machine: garbage is collected when half as much as is in use has gathered, unless GOGC says
// otherwise, and what the start, or any work later, took and nothing needs again goes back when the program has come to rest. The
// returned function ends that. trim gives back what is not the collector's.
func slim(trim func()) (stop func()) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	give := func() {
		debug.FreeOSMemory()
		unmap()
	}
	unmap()
	early, late := time.AfterFunc(20*time.Millisecond, give), time.AfterFunc(150*time.Millisecond, give)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(restLook)
		defer ticker.Stop()
		for r := (rest{allocated(), allocated()}); ; {
			select {
			case <-ticker.C:
				if r.look(allocated()) {
					trim()
					give()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		early.Stop()
		late.Stop()
		cancel()
		<-done
	}
}

// trim gives back what the databases keep at hand.
func (a *app) trim() {
	a.db.Trim()
	if a.local != a.db {
		a.local.Trim()
	}
}

// The program rests when it has taken no more than restBytes since the last look, or little of what it took since it gave back last (a large
// vault is looked through every few seconds); giving back is worth its while (tens of milliseconds of one
// core) when it took more than workBytes since it gave back last.
const (
	restLook  = 3 * time.Second
	restBytes = 2 << 20
	workBytes = 8 << 20
)

// A rest tells when the program has come to rest after work, by how many bytes it had taken at the last look and when it gave back last.
type rest struct{ last, freed uint64 }

func (r *rest) look(now uint64) (free bool) {
	free = now-r.last <= max(restBytes, (now-r.freed)/8) && now-r.freed > workBytes
	if free {
		r.freed = now
	}
	r.last = now
	return free
}

// allocated is how many bytes the heap has given out since the start.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// reachable is the address under which this machine reaches a listener.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
