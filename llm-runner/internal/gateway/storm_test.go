package gateway_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// Many clients, of whom some leave at a random moment: whoever stays gets his own answer and nobody else's, and each
// attempt has one honest row. Run with -race, this is the watch over everything that is shared between requests.
func TestAStormOfLeavingClients(t *testing.T) {
	mark := regexp.MustCompile(`mark-[0-9]+-`)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		m := mark.FindString(string(in))
		if !strings.Contains(string(in), `"stream":true`) {
			_, _ = io.WriteString(w, strings.Replace(answer, "hello", m, 1))
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range 20 {
			_, _ = io.WriteString(w, strings.Replace(hello, "hello", m, 1))
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, stop+counts+done)
	}))
	defer up.Close()
	m := remote("up", up.URL)
	m.Concurrency = 8
	l := openLab(t, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.KeepAlive = time.Millisecond })
	var clients sync.WaitGroup
	for c := range 16 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range 25 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				stays := r.IntN(2) == 0
				if !stays {
					time.AfterFunc(time.Duration(r.IntN(8000))*time.Microsecond, cancel)
				}
				word := fmt.Sprintf("mark-%d-", 100*c+i)
				body, want := streamed, strings.Repeat(strings.Replace(hello, "hello", word, 1), 20)+stop+counts+done
				if r.IntN(3) == 0 {
					body, want = whole, strings.Replace(answer, "hello", word, 1)
				}
				g := l.do(ctx, chat, strings.Replace(body, "hi", word, 1))
				got := strings.ReplaceAll(g.body, ": waiting\n\n", "")
				if stays && (g.err != nil || got != want) || !stays && !strings.HasPrefix(want+": waiting\n\n", got) && !strings.Contains(g.body, ": waiting") {
					t.Errorf("%s: error %v, got %s", word, g.err, clip(got))
				}
				cancel()
			}
		})
	}
	clients.Wait()
	for _, row := range l.rows() {
		if row.Outcome != usage.OK && row.Outcome != usage.Cancelled {
			t.Errorf("ledger: %+v", row)
		}
	}
	if r := l.router.Reports()[0]; r.Active != 0 || r.Waiting != 0 {
		t.Errorf("places are left taken: %+v", r)
	}
}
