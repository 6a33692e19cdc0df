package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// holdBack has the streams of a row go out when they are whole.
func holdBack(name string) setting {
	return func(_ *gateway.Config, rc *route.Config) {
		row := rc.Table.Models[name]
		row.Whole = true
		rc.Table.Models[name] = row
	}
}

// Whatever the provider's dialect, a stream that breaks in its middle is saved by the fallback, and each try is in the books.
func TestAStreamHeldBackIsSaved(t *testing.T) {
	for _, kind := range fake.Kinds() {
		for _, fault := range []script.FaultKind{script.ResetMidStream, script.CloseMidStream, script.StallMidStream, script.MalformedChunk, script.ErrorMidStream, script.Truncate} {
			t.Run(kind+"/"+string(fault), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := mishap{fault: script.Fault{Kind: fault}}
					l, up := m.town(t, &ether{}, kind)
					s := readSight(t, l.do(t.Context(), chat, asked("covered", "break it", true), "X-Runner-Stream", "whole"), true)
					if !s.whole || s.said != spareText || s.Header.Get("X-Runner-Provider") != "other" || s.Header.Get("X-Runner-Rule") != "fallback" {
						t.Errorf("%d, %v: %s", s.StatusCode, s.Header, clip(s.body))
					}
					if n := len(up.Requests()); n != 1 {
						t.Errorf("the provider was asked %d times", n)
					}
					rows := l.rows()
					if len(rows) != 2 || rows[1].Outcome != usage.Failed || rows[1].Provider != "up" || rows[0].Outcome != usage.OK || rows[0].Provider != "other" {
						t.Errorf("ledger: %+v", rows)
					}
				})
			})
		}
	}
}

// Held back or not, the client reads the same, only later.
func TestAStreamHeldBackIsTheSame(t *testing.T) {
	for _, kind := range []string{"openai", "anthropic"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ether{}
				up, _ := e.member(t, "up", kind, time.Minute, script.Script{Reply: []script.Rule{{Text: faultText, ChunkDelay: time.Second}}})
				l := openTown(t, e, []route.Member{up}, holdBack("up"))
				live := l.do(t.Context(), chat, asked("up", "hi", true), "X-Runner-Stream", "live")
				back := l.do(t.Context(), chat, asked("up", "hi", true))
				want, got := sameAgain(live.body), sameAgain(back.body)
				if got != want || !strings.HasSuffix(got, "data: [DONE]\n\n") {
					t.Errorf("got %s, want %s", got, want)
				}
				if live.Header.Get("Content-Type") != back.Header.Get("Content-Type") || back.Header.Get("X-Runner-Provider") != "up" {
					t.Errorf("got %v, want %v", back.Header, live.Header)
				}
				rows := l.rows()
				if first := rows[0].FirstByte; first < 2*rows[1].FirstByte {
					t.Errorf("the first byte came after %s, live after %s", first, rows[1].FirstByte)
				}
			})
		})
	}
}

// sameAgain leaves out of a stream what is of its own each time.
func sameAgain(stream string) string {
	var all []string
	for _, ev := range strings.SplitAfter(stream, "\n\n") {
		data, ok := strings.CutPrefix(strings.TrimSpace(ev), "data: ")
		var c map[string]any
		if !ok || json.Unmarshal([]byte(data), &c) != nil {
			all = append(all, ev)
			continue
		}
		delete(c, "id")
		delete(c, "created")
		b, _ := json.Marshal(c)
		all = append(all, string(b)+"\n")
	}
	return strings.Join(all, "")
}

// While it is held back, comments keep the connection alive, also between words that come and are kept. They went out with headers that
// name who was asked then, so another that answers is named by a comment.
func TestAStreamHeldBackIsKeptAlive(t *testing.T) {
	for _, kind := range []string{"openai", "anthropic"} {
		t.Run(kind, func(t *testing.T) { keptAlive(t, kind) })
	}
}

func keptAlive(t *testing.T, kind string) {
	synctest.Test(t, func(t *testing.T) {
		fault := script.Fault{Kind: script.StallMidStream}
		e := &ether{}
		f, err := fake.New(kind, script.Script{Reply: []script.Rule{{Text: faultText, Fault: &fault, ChunkDelay: 100 * time.Millisecond}}})
		if err != nil {
			t.Fatal(err)
		}
		up := e.serve(t, "up", kind, 30*time.Second, f)
		other, _ := e.member(t, "other", "openai", 30*time.Second, script.Script{Reply: []script.Rule{{Text: spareText}}})
		l := openTown(t, e, []route.Member{up, other}, cover("up", "other"), holdBack("covered"),
			func(c *gateway.Config, _ *route.Config) { c.KeepAlive = 50 * time.Millisecond })
		g := l.do(t.Context(), chat, asked("covered", "hi", true))
		comments, rest, named := strings.Cut(g.body, ": answered by other/m, rule fallback\n\ndata: ")
		if n := strings.Count(comments, ": waiting\n\n"); !named || n < 100 || len(comments) != n*len(": waiting\n\n") || !strings.HasSuffix(rest, "data: [DONE]\n\n") {
			t.Errorf("got %s", clip(g.body))
		}
		if s := readSight(t, g, true); s.said != spareText || !s.whole {
			t.Errorf("said %q", s.said)
		}
	})
}

// Where nobody is named, a stream that breaks is a clean error, with a status of its own: nothing of it has gone out.
func TestAStreamHeldBackThatNobodySaves(t *testing.T) {
	l := openLab(t, []route.Member{fails("up", &llm.Error{Kind: llm.Unavailable, Message: "gone", Started: true}, llm.Event{Text: "half"})}, holdBack("up"))
	g := l.post(chat, strings.Replace(streamed, `"x"`, `"up"`, 1))
	if g.status() != http.StatusBadGateway && g.status() != http.StatusServiceUnavailable || strings.Contains(g.body, "half") {
		t.Errorf("%d %s", g.status(), g.body)
	}
}

// An answer that is larger than what is held back flows from there as it comes: memory is bounded, and nothing is lost.
func TestAStreamLargerThanWhatIsHeldBack(t *testing.T) {
	const pieces, size = 20, 1 << 20
	went := make(chan struct{})
	m := route.Member{Name: "up", Kind: "scripted", Provider: source(func(ctx context.Context, _ llm.Request) iter.Seq2[llm.Event, error] {
		return func(yield func(llm.Event, error) bool) {
			for i := range pieces {
				if i == pieces-1 {
					select { // the last piece comes once the client reads the first
					case <-went:
					case <-ctx.Done():
						return
					}
				}
				if !yield(llm.Event{Text: strings.Repeat(fmt.Sprint(i%10), size)}, nil) {
					return
				}
			}
			yield(llm.Event{Finish: llm.FinishStop}, nil)
		}
	})}
	l := openLab(t, []route.Member{m}, holdBack("up"))
	go func() {
		<-clientHas(t)
		close(went)
	}()
	g := l.postAfter(chat, strings.Replace(streamed, `"x"`, `"up"`, 1), "data: ")
	s := readSight(t, g, true)
	if len(s.said) != pieces*size || !s.whole {
		t.Errorf("%d bytes came, whole: %t", len(s.said), s.whole)
	}
}

func TestAWishForStreamsThatIsNone(t *testing.T) {
	l := openLab(t, []route.Member{says("up", llm.Event{Text: "hi", Finish: llm.FinishStop})})
	if g := l.post(chat, streamed, "X-Runner-Stream", "slow"); g.status() != http.StatusBadRequest || !strings.Contains(g.body, `X-Runner-Stream: \"slow\" is neither live`) {
		t.Errorf("%d %s", g.status(), g.body)
	}
}
