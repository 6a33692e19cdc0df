package providertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// soon is long for a cancellation, on a machine that has other things to do, and short for who reads to the end instead.
const soon = 5 * time.Second

// endless is an answer that lasts for ten times as long.
var endless = script.Script{Reply: []script.Rule{{Text: strings.Repeat("word ", 5000), ChunkDelay: 10 * time.Millisecond}}}

// cancelled waits until the upstream has seen the caller leave, and checks that it was soon after since.
func cancelled(t *testing.T, up *fake.Server, since time.Time) {
	t.Helper()
	if up == nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, ok := up.Await(ctx, func(s fake.Seen) bool { return !s.Cancelled.IsZero() })
	if !ok {
		t.Fatal("the upstream was never cancelled")
	}
	if d := seen.Cancelled.Sub(since); d > soon {
		t.Errorf("the upstream saw the cancellation after %s", d)
	}
}

func (s Suite) stops(t *testing.T) {
	t.Run("breaking the loop cancels the upstream", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: endless})
		n := 0
		var since time.Time
		for ev, err := range sub.Provider.Stream(t.Context(), s.request("go on")) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Text != "" {
				if n++; n == 3 {
					since = time.Now()
					break
				}
			}
		}
		if d := time.Since(since); d > soon {
			t.Errorf("the loop ended %s after the break", d)
		}
		cancelled(t, sub.Upstream, since)
	})
	t.Run("cancelling in the middle", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: endless})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var since time.Time
		var failed error
		for ev, err := range sub.Provider.Stream(ctx, s.request("go on")) {
			if err != nil {
				failed = err
			} else if ev.Text != "" && since.IsZero() {
				since = time.Now()
				cancel()
			}
		}
		s.wasCancelled(t, failed, since, true)
		cancelled(t, sub.Upstream, since)
	})
	t.Run("cancelling before the first byte", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "late", Delay: time.Minute}}}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var since time.Time
		if sub.Upstream != nil {
			go func() {
				sub.Upstream.Await(ctx, func(fake.Seen) bool { return true })
				since = time.Now()
				cancel()
			}()
		} else {
			since = time.Now()
			cancel()
		}
		_, err := llm.Collect(sub.Provider.Stream(ctx, s.request("hello")))
		<-ctx.Done()
		s.wasCancelled(t, err, since, false)
		cancelled(t, sub.Upstream, since)
	})
	t.Run("cancelled before it began", func(t *testing.T) {
		sub := s.Open(t, Scenario{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := llm.Collect(sub.Provider.Stream(ctx, s.request("hello")))
		s.wasCancelled(t, err, time.Now(), false)
	})
}

func (s Suite) wasCancelled(t *testing.T, err error, since time.Time, started bool) {
	t.Helper()
	if d := time.Since(since); d > soon {
		t.Errorf("the loop ended %s after the cancellation", d)
	}
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Cancelled || e.Started != started {
		t.Errorf("got %#v, want an *llm.Error of kind cancelled, started %v", err, started)
	}
}

func (s Suite) concurrent(t *testing.T) {
	sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "for {{input}} only, and nobody else"}}}})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 4 {
				who := fmt.Sprintf("caller %d.%d", i, j)
				a, err := llm.Collect(sub.Provider.Stream(t.Context(), s.request(who)))
				if want := "for " + who + " only, and nobody else"; err != nil || a.Message.Text() != want {
					t.Errorf("got %q, %v, want %q", a.Message.Text(), err, want)
				}
			}
		})
	}
	wg.Wait()
}

// leaks asks in every way that could leave something behind, and waits for the provider's goroutines to end.
func (s Suite) leaks(t *testing.T) {
	before := goroutines()
	t.Run("after use", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: endless})
		for range 3 {
			for ev, err := range sub.Provider.Stream(t.Context(), s.request("go on")) {
				if err != nil || ev.Text != "" {
					break
				}
			}
		}
		if c, ok := sub.Provider.(interface{ CloseIdle() }); ok {
			c.CloseIdle()
		}
	})
	deadline := time.Now().Add(time.Minute)
	for goroutines() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after\n%s", before, goroutines(), stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

// goroutines counts those that run this repository's or net/http's code on a provider's behalf.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	n := 0
	for _, g := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(g, "net/http.(*persistConn)") || strings.Contains(g, "llm-runner/internal/upstream.") {
			n++
		}
	}
	return n
}
