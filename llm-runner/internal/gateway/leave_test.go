package gateway_test

import (
	"context"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// prompt is how soon a client's leaving must reach the upstream: 100 ms is promised, a busy test machine gets more, and less than any upstream here waits.
const prompt = 10 * time.Second

// A translated upstream that waits: it yields before, then waits for its context and closes gone.
func waits(name string, gone chan<- struct{}, entered chan<- struct{}, before ...llm.Event) route.Member {
	return route.Member{Name: name, Kind: "scripted", Provider: source(func(ctx context.Context, _ llm.Request) iter.Seq2[llm.Event, error] {
		return func(yield func(llm.Event, error) bool) {
			for _, ev := range before {
				if !yield(ev, nil) {
					break
				}
			}
			entered <- struct{}{}
			<-ctx.Done()
			gone <- struct{}{}
			yield(llm.Event{}, &llm.Error{Kind: llm.Cancelled, Err: ctx.Err()})
		}
	})}
}

func TestALeavingClientStopsTheUpstream(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*raw) // until it waits
		events []llm.Event
		body   string
	}{
		{"before the headers", func(r *raw) {}, nil, streamed},
		{"before the first token", func(r *raw) { r.say(eventHead); r.chunk(": PROCESSING\n\n") }, []llm.Event{{Usage: &told}}, streamed},
		{"in the middle", func(r *raw) { r.say(eventHead); r.chunk(role, hello) }, []llm.Event{{Text: "hello"}}, streamed},
		{"before the headers, whole", func(r *raw) {}, nil, whole},
		{"in the middle, whole", func(r *raw) { r.say(sized(answer)[:200]) }, []llm.Event{{Text: "hello"}}, whole},
	} {
		for _, path := range []string{"passed through", "translated"} {
			t.Run(c.name+"/"+path, func(t *testing.T) {
				entered, gone := make(chan struct{}, 1), make(chan struct{}, 1)
				var m route.Member
				if path == "translated" {
					m = waits("up", gone, entered, c.events...)
				} else {
					url, _ := serveRaw(t, func(r *raw) {
						c.answer(r)
						entered <- struct{}{}
						<-r.gone
						gone <- struct{}{}
					})
					m = remote("up", url)
				}
				m.Concurrency = 1
				l := openLab(t, []route.Member{m})
				ctx, leave := context.WithCancel(t.Context())
				left := make(chan got, 1)
				go func() { left <- l.do(ctx, chat, c.body) }()
				wait(t, "upstream", entered)
				at := time.Now()
				leave()
				wait(t, "the upstream's end", gone)
				if d := time.Since(at); d > prompt {
					t.Errorf("the upstream noticed after %s", d)
				}
				wait(t, "client", left)
				if got := l.outcome(); got != usage.Cancelled {
					t.Errorf("ledger: %s", got)
				}
				for _, r := range l.router.Reports() {
					if r.Active != 0 || r.Waiting != 0 {
						t.Errorf("the place is not free: %+v", r)
					}
				}
			})
		}
	}
}

func TestAClientMayLeaveWhileInLine(t *testing.T) {
	entered, gone := make(chan struct{}, 2), make(chan struct{}, 2)
	m := waits("up", gone, entered)
	m.Concurrency = 1
	l := openLab(t, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.KeepAlive = time.Millisecond })
	first, leaveFirst := context.WithCancel(t.Context())
	go l.do(first, chat, streamed)
	wait(t, "upstream", entered)

	second, leaveSecond := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(second, http.MethodPost, l.url+chat, strings.NewReader(streamed))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(": waiting\n\n"))
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != ": waiting\n\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	eventually(t, "the second to be in line", func() bool { return l.router.Reports()[0].Waiting == 1 })
	leaveSecond()
	resp.Body.Close()
	eventually(t, "the place in line to be free", func() bool { return l.router.Reports()[0].Waiting == 0 })
	leaveFirst()
	wait(t, "the upstream's end", gone)
	rows := l.rows()
	if len(rows) != 1 || rows[0].Outcome != usage.Cancelled || len(entered) != 0 {
		t.Errorf("who leaves the line makes no attempt: %+v", rows)
	}
}

// A client that does not read holds the upstream back: what is in flight is bounded by socket buffers, not by memory.
func TestASlowReaderSlowsTheUpstreamDown(t *testing.T) {
	event := strings.Replace(hello, "hello", strings.Repeat("x", 32<<10), 1)
	const most = 2000 // events, 64 MB
	sent := make(chan int, 1)
	url, _ := serveRaw(t, func(r *raw) {
		_ = r.Conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
		r.say(eventHead)
		n := 0
		for ; n < most; n++ {
			_ = r.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := io.WriteString(r, chunkOf(event)); err != nil {
				break
			}
		}
		sent <- n
	})
	l := openLab(t, []route.Member{remote("up", url)})
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	_, _ = io.WriteString(conn, "POST "+chat+" HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(len(streamed))+"\r\n\r\n"+streamed)
	if n := wait(t, "the upstream to block", sent); n == most {
		t.Errorf("all %d events were taken from the upstream though nobody read them", n)
	}
}

func TestAClientThatNeverReadsIsGivenUp(t *testing.T) {
	event := strings.Replace(hello, "hello", strings.Repeat("x", 32<<10), 1)
	ended := make(chan struct{})
	url, _ := serveRaw(t, func(r *raw) {
		r.say(eventHead)
		for {
			if _, err := io.WriteString(r, chunkOf(event)); err != nil {
				close(ended)
				return
			}
		}
	})
	l := openLab(t, []route.Member{remote("up", url)}, func(c *gateway.Config, _ *route.Config) { c.Patience = 200 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST "+chat+" HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(len(streamed))+"\r\n\r\n"+streamed)
	wait(t, "the upstream's end", ended)
	if got := l.outcome(); got != usage.Cancelled {
		t.Errorf("ledger: %s", got)
	}
}

func TestComments(t *testing.T) {
	often := func(c *gateway.Config, _ *route.Config) { c.KeepAlive = 40 * time.Millisecond }
	t.Run("then the answer", func(t *testing.T) {
		url, _ := serveRaw(t, func(r *raw) {
			wait(t, "client", r.passed) // has seen a comment
			r.say(eventHead, chunked(role+hello+stop+counts+done))
		})
		l := openLab(t, []route.Member{remote("up", url)}, often)
		g := l.postAfter(chat, streamed, ": waiting\n\n: waiting\n\n")
		body := strings.ReplaceAll(g.body, ": waiting\n\n", "")
		if g.err != nil || g.StatusCode != 200 || body != role+hello+stop+counts+done || g.Header.Get("X-Accel-Buffering") != "no" || g.Header.Get("X-Runner-Provider") != "up" {
			t.Errorf("status %d, error %v, headers %v, body %s", g.status(), g.err, g.Header, body)
		}
	})
	t.Run("then a failure", func(t *testing.T) {
		url, _ := serveRaw(t, func(r *raw) {
			wait(t, "client", r.passed)
			r.say("HTTP/1.1 429 Slow\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n")
		})
		l := openLab(t, []route.Member{remote("up", url)}, often)
		g := l.postAfter(chat, streamed, ": waiting\n\n")
		body := strings.ReplaceAll(g.body, ": waiting\n\n", "")
		if g.err == nil || g.StatusCode != 200 || !strings.HasPrefix(body, `data: {"error":{`) || !strings.Contains(body, "rate_limit_exceeded") || !strings.Contains(body, "retry_at") {
			t.Errorf("status %d, error %v, body %s", g.status(), g.err, body)
		}
	})
	t.Run("not for whole answers", func(t *testing.T) {
		url, _ := serveRaw(t, func(r *raw) {
			time.AfterFunc(100*time.Millisecond, func() { r.say(sized(answer)); r.Close() })
			<-r.gone
		})
		l := openLab(t, []route.Member{remote("up", url)}, often)
		if g := l.post(chat, whole); g.err != nil || g.body != answer {
			t.Errorf("error %v, body %s", g.err, g.body)
		}
	})
}

// The service is stopping, not the client: a stream that is cut must not look whole.
func TestStoppingIsNoCleanEnd(t *testing.T) {
	url, _ := serveRaw(t, func(r *raw) { r.say(eventHead); r.chunk(role); <-r.gone })
	ctx, stopAll := context.WithCancel(t.Context())
	l := openLab(t, []route.Member{remote("up", url)})
	inner := l.server.Config.Handler
	l.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	go func() { wait(t, "client", clientHas(t)); stopAll() }()
	g := l.postAfter(chat, streamed, role)
	if g.err == nil || !strings.Contains(g.body, `"code":"cancelled"`) || strings.Contains(g.body, "[DONE]") {
		t.Errorf("error %v, body %s", g.err, g.body)
	}
}
