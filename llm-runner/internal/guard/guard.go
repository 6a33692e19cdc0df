// Package guard stands before every handler: it knows who may come in, turns away requests that a foreign web page makes
// a browser send, bounds what a request may bring, and turns a panic into an answer.
//
// Without a password and without tokens the service is open to whoever reaches it, so New refuses that on any address
// that other machines reach. With them:
//
//   - people log in at /login and keep a cookie; POST /logout takes it away;
//   - programs send "Authorization: Bearer TOKEN" or "X-Api-Key: TOKEN";
//   - /health without either tells its status code and {"status": ...}, nothing else; everything else, /metrics too,
//     needs one of the two.
package guard

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A Config is what a Guard is made of.
type Config struct {
	Listen   string            // host:port; an empty host, 0.0.0.0 and [::] are all addresses of the machine
	Password string            // of people; "" nobody can log in
	Tokens   map[string]string // of programs, by a name that may be logged
	Deciders []string          // names of those Tokens with which what waits for a person may be decided; see Decides
	// Hosts are further names under which browsers and programs reach the service ("runner.example.org"), without port.
	// The host of Listen and the names of the machine itself (localhost, 127.0.0.1, ::1) always count; addresses count
	// where Listen is all addresses.
	Hosts []string
	// KeyFile holds the key that signs cookies, so that a restart logs nobody out. It is made if it is missing. "" keeps
	// the key in memory.
	KeyFile string
	// MaxBody bounds the body of any request in bytes; 0 means 64 MiB. Doors that want less bound it themselves.
	MaxBody int64
	Log     *slog.Logger // nil: slog.Default()
}

// Shortest secrets that are accepted, in bytes: a password is guessed at the throttled form, a token at full speed.
const (
	minPassword = 8
	minToken    = 16
)

// Validate returns all that is wrong with c, with its cure.
func (c Config) Validate() error {
	var faults []error
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		faults = append(faults, fmt.Errorf("listen %q: is not host:port, such as 127.0.0.1:8080", c.Listen))
	} else if !c.auth() && !loopback(host) {
		faults = append(faults, fmt.Errorf("listen %q: other machines reach this address, and nobody would be asked who they "+
			"are: set a password or tokens, or listen on 127.0.0.1", c.Listen))
	}
	if c.Password != "" && len(c.Password) < minPassword {
		faults = append(faults, fmt.Errorf("password: has fewer than %d characters", minPassword))
	}
	for name, token := range c.Tokens {
		if len(token) < minToken {
			faults = append(faults, fmt.Errorf("tokens.%s: has fewer than %d characters: make one with openssl rand -hex 24", name, minToken))
		}
	}
	for _, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, "/:* ") && !addr(h).IsValid() {
			faults = append(faults, fmt.Errorf("hosts: %q is not a host name without port", h))
		}
	}
	return errors.Join(faults...)
}

func (c Config) auth() bool { return c.Password != "" || len(c.Tokens) > 0 }

// loopback says that only this machine reaches host.
func loopback(host string) bool {
	return strings.EqualFold(host, "localhost") || addr(host).IsLoopback()
}

// addr reads an address, in brackets or not; the zero Addr is not valid.
func addr(host string) netip.Addr {
	a, _ := netip.ParseAddr(strings.Trim(host, "[]"))
	return a.Unmap()
}

// A Guard wraps handlers. It is safe for concurrent use.
type Guard struct {
	maxBody  int64
	log      *slog.Logger
	open     bool // nobody is asked who they are
	password *[sha256.Size]byte
	tokens   []token
	cookies  signer
	throttle throttle
	hosts    map[string]bool
	anyAddr  bool // listens on all addresses
	cross    *http.CrossOriginProtection
}

// New returns a Guard, or all that is wrong with c.
func New(c Config) (*Guard, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	g := &Guard{maxBody: c.MaxBody, log: c.Log, open: !c.auth(), cross: http.NewCrossOriginProtection()}
	if g.maxBody <= 0 {
		g.maxBody = 64 << 20
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	if c.Password != "" {
		sum := sha256.Sum256([]byte(c.Password))
		g.password = &sum
	}
	for name, t := range c.Tokens {
		// Where nobody can log in, a person has nothing but a token.
		decides := slices.Contains(c.Deciders, name) || c.Password == "" && len(c.Deciders) == 0
		g.tokens = append(g.tokens, token{name, sha256.Sum256([]byte(t)), decides})
	}
	key, err := loadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	g.cookies = newSigner(key, c.Password)
	host, _, _ := net.SplitHostPort(c.Listen)
	g.anyAddr = host == "" || addr(host).IsUnspecified()
	g.hosts = map[string]bool{"localhost": true, canonical(host): true}
	for _, h := range c.Hosts {
		g.hosts[canonical(h)] = true
	}
	return g, nil
}

// Wrap returns next behind the guard.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	admitted := g.admit(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		defer g.recover(t, r)
		secure(w.Header())
		if !g.knownHost(r.Host) {
			refuse(t, http.StatusMisdirectedRequest, "unknown_host", fmt.Sprintf("this service is not known as %q; if it should be, "+
				"add the name to hosts in its configuration", r.Host))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, g.maxBody)
		switch {
		case g.password != nil && r.URL.Path == "/login":
			g.login(t, r)
		case g.password != nil && r.URL.Path == "/logout":
			g.logout(t, r)
		default:
			admitted.ServeHTTP(t, r)
		}
	})
}

// admit lets through who may come in.
func (g *Guard) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch who := g.identify(r); {
		case who.program:
			// A foreign page cannot make a browser send a token.
			if !who.decides {
				r = r.WithContext(context.WithValue(r.Context(), undecided{}, true))
			}
		case g.open, who.person:
			if err := g.ownPage(r, who.person); err != nil {
				refuse(w, http.StatusForbidden, "cross_site", err.Error())
				return
			}
		case r.URL.Path == "/health" && !who.wrong && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			statusOnly(w, r, next)
			return
		case g.password != nil && !who.wrong && wantsPage(r):
			http.Redirect(w, r, "/login?next="+escapeNext(r), http.StatusSeeOther)
			return
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "invalid_api_key", "a valid token is needed: send it as Authorization: Bearer TOKEN")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// undecided marks the context of a request whose sender is a program that does not speak for a person.
type undecided struct{}

// Decides says that whoever sent a request may decide what waits for a person, and set what a program may do unasked: a program that is given tools
// must not allow its own calls.
func Decides(r *http.Request) bool { return r.Context().Value(undecided{}) == nil }

// secure sets headers that hold for all pages; a handler may say otherwise.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-DNS-Prefetch-Control", "off") // a link that a page wrote must not be looked up before somebody follows it
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "+
		"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
}

// refuse answers in the shape that clients of OpenAI and of Anthropic read; people see the sentence in it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	kind := "invalid_request_error"
	if status == http.StatusUnauthorized {
		kind = "authentication_error"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "error", "error": map[string]any{"message": message, "type": kind, "code": code, "param": nil}})
}

// recover logs a panic and answers 500, or, where an answer has begun, cuts the connection, so that it has no proper end.
// The panic's value is not logged unless it is the runtime's: it may hold a request.
func (g *Guard) recover(t *tracked, r *http.Request) {
	v := recover()
	switch {
	case v == nil:
		return
	case v == http.ErrAbortHandler:
		panic(v)
	}
	what := fmt.Sprintf("%T", v)
	var fault interface{ RuntimeError() }
	if err, ok := v.(error); ok && errors.As(err, &fault) {
		what = err.Error()
	}
	g.log.Error("panic in a handler", "method", r.Method, "path", r.URL.Path, "panic", what, "stack", string(debug.Stack()))
	if t.wrote {
		panic(http.ErrAbortHandler)
	}
	refuse(t, http.StatusInternalServerError, "internal_error", "internal fault; the log has the details")
}

// tracked knows whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	wrote bool
}

func (t *tracked) WriteHeader(status int) {
	t.wrote = t.wrote || status >= 200
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(b []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(b)
}

func (t *tracked) Flush() {
	t.wrote = true
	_ = http.NewResponseController(t.ResponseWriter).Flush()
}

// FlushError is Flush for http.ResponseController.
func (t *tracked) FlushError() error {
	t.wrote = true
	return http.NewResponseController(t.ResponseWriter).Flush()
}

func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// statusOnly answers with what next says of the status and nothing else.
func statusOnly(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &captured{header: http.Header{}}
	next.ServeHTTP(c, r)
	var said struct {
		Status string `json:"status"`
	}
	_ = json.Unmarshal(c.body, &said) // what is no JSON has no status to tell
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(max(c.status, http.StatusOK))
	_ = json.NewEncoder(w).Encode(said)
}

// captured keeps a response of at most one mebibyte.
type captured struct {
	header http.Header
	status int
	body   []byte
}

func (c *captured) Header() http.Header { return c.header }

func (c *captured) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
}

func (c *captured) Write(b []byte) (int, error) {
	if len(c.body)+len(b) > 1<<20 {
		return 0, errors.New("response too large")
	}
	c.body = append(c.body, b...)
	return len(b), nil
}

// Server returns a server for handler at addr. A request's header must come within ten seconds; there is no bound on how
// long an answer streams, and none on reading a body (net/http would end the stream with it): handlers bound both.
func Server(addr string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr: addr, Handler: handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}
