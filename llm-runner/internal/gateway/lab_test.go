package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// patience bounds every wait of these tests; none of them waits that long when all is well.
const patience = 60 * time.Second

// A lab is a gateway before a real router and a real ledger.
type lab struct {
	testing.TB
	url    string
	server *httptest.Server
	router *route.Router
	db     *db.DB
	book   *quota.Book
	client http.RoundTripper
	stop   func()
}

// A setting changes how a lab is built.
type setting func(*gateway.Config, *route.Config)

// openLab returns a lab whose default is the first member's model "m". Each member is also a row under its own name.
func openLab(t testing.TB, members []route.Member, settings ...setting) *lab {
	t.Helper()
	return openOver(t, http.DefaultTransport, httptest.NewUnstartedServer, members, settings...)
}

// openOver is openLab on a network of the test's own.
func openOver(t testing.TB, client http.RoundTripper, serve func(http.Handler) *httptest.Server, members []route.Member, settings ...setting) *lab {
	t.Helper()
	d, err := db.Open(context.Background(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := usage.Open(context.Background(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = ledger.Run(ctx) })
	rc := route.Config{Members: members, Ledger: ledger, Book: new(quota.Book), Log: slog.New(slog.DiscardHandler)}
	rc.Table.Default = route.Target{Provider: members[0].Name, Model: "m"}
	rc.Table.Models = map[string]route.Entry{}
	for _, m := range members {
		rc.Table.Models[m.Name] = route.Entry{Target: route.Target{Provider: m.Name, Model: "m"}}
	}
	gc := gateway.Config{KeepAlive: -1}
	for _, set := range settings {
		set(&gc, &rc)
	}
	l := &lab{TB: t, router: route.New(rc), db: d, book: rc.Book, client: client}
	gc.Router = l.router
	l.server = serve(gateway.New(gc))
	l.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	l.server.Start()
	l.url = l.server.URL
	l.stop = sync.OnceFunc(func() {
		l.server.Close() // waits for the handlers
		cancel()
		done.Wait()
	})
	t.Cleanup(func() {
		l.stop()
		d.Close()
	})
	return l
}

// rows ends the lab and returns its ledger, newest first.
func (l *lab) rows() []usage.Row {
	l.Helper()
	l.stop()
	rows, err := usage.Recent(context.Background(), l.db, 1000)
	if err != nil {
		l.Fatal(err)
	}
	return rows
}

// outcome ends the lab and returns the outcome of its only attempt.
func (l *lab) outcome() usage.Outcome {
	l.Helper()
	rows := l.rows()
	if len(rows) != 1 {
		l.Fatalf("%d attempts in the ledger, want 1: %+v", len(rows), rows)
	}
	return rows[0].Outcome
}

// A got is a response as far as it came.
type got struct {
	*http.Response
	body string
	err  error // of reading the body: nil is a clean end
}

func (l *lab) post(path, body string, header ...string) got {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.do(ctx, path, body, header...)
}

func (l *lab) do(ctx context.Context, path, body string, header ...string) got {
	l.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+path, strings.NewReader(body))
	if err != nil {
		return got{err: err}
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := l.client.RoundTrip(req)
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return got{resp, string(b), err}
}

// passing are the channels of clientHas by test.
var passing sync.Map

// clientHas returns the channel that tells the upstream of a test that its client has read so far.
func clientHas(t testing.TB) chan struct{} {
	ch, _ := passing.LoadOrStore(t.Name(), make(chan struct{}, 1000))
	return ch.(chan struct{})
}

// postAfter is post that tells the upstream once the client has read want.
func (l *lab) postAfter(path, body, want string) got {
	l.Helper()
	resp, err := http.Post(l.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	have := make([]byte, len(want))
	n, err := io.ReadFull(resp.Body, have)
	clientHas(l.TB) <- struct{}{}
	if err != nil {
		return got{resp, string(have[:n]), err}
	}
	b, err := io.ReadAll(resp.Body)
	return got{resp, string(have) + string(b), err}
}

const (
	chat     = "/v1/chat/completions"
	streamed = `{"model":"x", "stream":true, "stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`
	whole    = `{"model":"x","messages":[{"role":"user","content":"hi"}]}`
)

// remote is a member that speaks OpenAI's dialect at url.
func remote(name, url string) route.Member {
	p := openai.New(openai.Config{Name: name, URL: url, Key: "sk-test", Timeout: patience})
	return route.Member{Name: name, Kind: "openai", Cloud: true, Provider: p}
}

// tolerant is remote, except that a test about silence does not wait for long.
func tolerant(test, name, url string) route.Member {
	if !strings.Contains(test, "silence") {
		return remote(name, url)
	}
	p := openai.New(openai.Config{Name: name, URL: url, Timeout: 2 * time.Second})
	return route.Member{Name: name, Kind: "openai", Cloud: true, Provider: p}
}

// A raw is one request at an upstream that writes its own bytes.
type raw struct {
	net.Conn
	req  *http.Request
	body []byte
	n    int           // of this request, from 1
	gone chan struct{} // closed when the caller has closed the connection
	// passed is signalled by postAfter once the client has what was sent before the fault.
	passed <-chan struct{}
}

// say writes bytes as they are.
func (r *raw) say(parts ...string) {
	for _, p := range parts {
		_, _ = io.WriteString(r, p)
	}
}

// chunk writes each part as one chunk of a chunked body.
func (r *raw) chunk(parts ...string) {
	for _, p := range parts {
		r.say(chunkOf(p))
	}
}

// reset ends the connection with RST instead of FIN.
func (r *raw) reset() {
	_ = r.Conn.(*net.TCPConn).SetLinger(0)
	r.Close()
}

const (
	eventHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX-Request-Id: req_1\r\n\r\n"
	jsonHead  = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
)

// serveRaw answers each connection's first request with answer and closes it. It returns the base address and a channel of
// the requests that came.
func serveRaw(t testing.TB, answer func(*raw)) (url string, seen <-chan *raw) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan *raw, 10_000)
	passed := clientHas(t)
	var open sync.WaitGroup
	var mu sync.Mutex
	conns, count := map[net.Conn]bool{}, 0
	serve := func(conn net.Conn) {
		defer conn.Close()
		rd := bufio.NewReader(conn)
		req, err := http.ReadRequest(rd)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		count++
		r := &raw{Conn: conn, req: req, body: body, n: count, gone: make(chan struct{}), passed: passed}
		mu.Unlock()
		open.Go(func() {
			_, _ = io.Copy(io.Discard, rd)
			close(r.gone)
		})
		requests <- r
		answer(r)
	}
	open.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			open.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return "http://" + ln.Addr().String(), requests
}

// wait returns what comes out of ch, or fails.
func wait[T any](t testing.TB, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("%s: nothing happened for %s", what, patience)
	}
	return v
}

// eventually looks at something that tells nobody when it changes.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// A source is a Provider made of a function: the translated path without any dialect.
type source func(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error]

func (s source) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return s(ctx, req)
}

// says is a member that answers with events.
func says(name string, events ...llm.Event) route.Member {
	return route.Member{Name: name, Kind: "scripted", Provider: source(func(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
		return func(yield func(llm.Event, error) bool) {
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
		}
	})}
}

// fails is a member that answers with events and then an error.
func fails(name string, err error, events ...llm.Event) route.Member {
	return route.Member{Name: name, Kind: "scripted", Cloud: true, Provider: source(func(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
		return func(yield func(llm.Event, error) bool) {
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
			yield(llm.Event{}, err)
		}
	})}
}

func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func itoa(n int) string { return strconv.Itoa(n) }

// chunked returns body as one chunk with its end.
func chunked(body string) string { return chunkOf(body) + "0\r\n\r\n" }

func sized(body string) string {
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", jsonHead, len(body), body)
}
