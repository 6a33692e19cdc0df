package gateway_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// An ether is a network in memory, for tests inside synctest.Test: there a silence of five minutes or the wait for midnight
// takes no time, which sockets would prevent. Everything else is real: HTTP client and server, gateway, router, quotas, and
// the ledger in SQLite.
type ether struct {
	mu     sync.Mutex
	hosts  map[string]*port
	lost   map[string]error // hosts that cannot be reached, and why
	dialed []string
}

// A port is where a host of the ether listens.
type port struct {
	ether *ether
	name  string
	calls chan net.Conn
	shut  chan struct{}
	once  sync.Once
	open  []net.Conn // under the ether's lock
}

func (e *ether) listen(name string) net.Listener {
	p := &port{ether: e, name: name, calls: make(chan net.Conn), shut: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hosts == nil {
		e.hosts = map[string]*port{}
	}
	e.hosts[name] = p
	return p
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.shut:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() {
		p.ether.mu.Lock()
		delete(p.ether.hosts, p.name)
		p.ether.mu.Unlock()
		close(p.shut)
	})
	return nil
}

func (p *port) Addr() net.Addr { return place(p.name) }

// A place is an address in the ether.
type place string

func (place) Network() string  { return "tcp" }
func (p place) String() string { return string(p) }

// dial connects to host:port; where nobody listens the connection is refused, as it is on a real machine.
func (e *ether) dial(ctx context.Context, _, address string) (net.Conn, error) {
	e.mu.Lock()
	p, lost := e.hosts[address], e.lost[address]
	e.dialed = append(e.dialed, address)
	e.mu.Unlock()
	if lost != nil {
		return nil, lost
	}
	if p != nil {
		here, there := net.Pipe()
		broken := new(atomic.Bool)
		select {
		case p.calls <- &line{Conn: there, broken: broken}:
			e.mu.Lock()
			p.open = append(p.open, there)
			e.mu.Unlock()
			return &line{Conn: here, broken: broken}, nil
		case <-p.shut:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nobody(address)
}

// nobody is the error of a connection to an address at which nobody listens.
func nobody(address string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: place(address), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// lose has a host be unreachable because of err, until it is nil, and ends the connections that are open to it.
func (e *ether) lose(address string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost == nil {
		e.lost = map[string]error{}
	}
	e.lost[address] = err
	if p := e.hosts[address]; p != nil && err != nil {
		for _, c := range p.open {
			_ = c.Close()
		}
		p.open = nil
	}
}

// strangers returns the addresses that were dialed but for those that are expected.
func (e *ether) strangers(known ...string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.dialed), func(a string) bool { return slices.Contains(known, a) })
}

// A line is one end of a connection that can be reset.
type line struct {
	net.Conn
	hard   atomic.Bool  // closing resets
	broken *atomic.Bool // one of the ends was reset
}

// SetLinger is that of net.TCPConn, as far as it is used: 0 has Close send RST instead of FIN.
func (l *line) SetLinger(seconds int) error {
	l.hard.Store(seconds == 0)
	return nil
}

func (l *line) Close() error {
	if l.hard.Load() {
		l.broken.Store(true)
	}
	return l.Conn.Close()
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if errors.Is(err, io.EOF) && l.broken.Load() {
		err = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return n, err
}

// A town is a lab in the ether: providers that are imitated, a gateway before a real router, ledger and book.
type town struct {
	*lab
	ether *ether
}

// cover makes the rows lone, which is provider's and nobody else's, and covered, which names another as its fallback.
func cover(provider, other string) setting {
	return func(_ *gateway.Config, rc *route.Config) {
		row := route.Entry{Target: route.Target{Provider: provider, Model: "m"}}
		rc.Table.Models["lone"] = row
		row.Fallback = other
		rc.Table.Models["covered"] = row
	}
}

var update = flag.Bool("update", false, "write the tables of docs/faults.md anew")

// openTown opens a lab whose members are reached over the ether. It is called inside synctest.Test.
func openTown(t testing.TB, e *ether, members []route.Member, settings ...setting) *town {
	t.Helper()
	client := &http.Transport{DialContext: e.dial}
	settings = append(settings, func(c *gateway.Config, _ *route.Config) { c.Wait = 20 * time.Second }) // as serve has it
	l := openOver(t, client, func(h http.Handler) *httptest.Server {
		return &httptest.Server{Listener: e.listen("runner.test:80"), Config: &http.Server{Handler: h}}
	}, members, settings...)
	t.Cleanup(client.CloseIdleConnections)
	return &town{lab: l, ether: e}
}

// speakers are the providers by the kind of the fake that imitates them.
var speakers = map[string]func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider{
	"openai": func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider {
		return openai.New(openai.Config{Name: name, URL: url + "/v1", Timeout: silence, Dial: dial, Key: "sk-secret-key", Flavor: openai.OpenAI})
	},
	"groq": func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider {
		return openai.New(openai.Config{Name: name, URL: url + "/v1", Timeout: silence, Dial: dial, Key: "sk-secret-key", Flavor: openai.Groq})
	},
	"ollama": func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider {
		return ollama.New(ollama.Config{Name: name, URL: url, Timeout: silence, Dial: dial, Key: "sk-secret-key"})
	},
	"gemini": func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider {
		return gemini.New(gemini.Config{Name: name, URL: url, Timeout: silence, Dial: dial, Key: "sk-secret-key"})
	},
	"anthropic": func(name, url string, silence time.Duration, dial upstream.Dialer) llm.Provider {
		return anthropic.New(anthropic.Config{Name: name, URL: url, Timeout: silence, Dial: dial, Key: "sk-secret-key"})
	},
}

// member starts a fake of kind under the name that the member has, and returns both.
func (e *ether) member(t testing.TB, name, kind string, silence time.Duration, s script.Script) (route.Member, *fake.Server) {
	t.Helper()
	f, err := fake.New(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	return e.serve(t, name, kind, silence, f), f
}

// serve is member for a handler that the test has made.
func (e *ether) serve(t testing.TB, name, kind string, silence time.Duration, h http.Handler) route.Member {
	srv := &httptest.Server{Listener: e.listen(name + ".test:80"), Config: &http.Server{Handler: h}}
	srv.Start()
	p := speakers[kind](name, srv.URL, silence, e.dial)
	t.Cleanup(func() {
		p.(interface{ CloseIdle() }).CloseIdle()
		srv.Close()
	})
	return route.Member{Name: name, Kind: kind, Cloud: kind != "ollama", Provider: p}
}
