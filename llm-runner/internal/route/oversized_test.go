package route

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestARequestLargerThanALimitIsNotHeldForIt(t *testing.T) {
	const most = 30_000
	large, small := strings.Repeat("word ", 2*most), "word"
	for _, x := range []struct {
		name  string
		text  string
		known bool      // an earlier answer has told of the limit
		left  llm.Count // as the refusal tells
		kind  llm.Kind  // at last
		sent  int64     // how often it is sent until then
	}{
		{"the refusal says that nothing was used", large, true, llm.Known(most), llm.BadRequest, 1},
		{"rounded", large, true, llm.Known(most - 1000), llm.BadRequest, 1},
		{"it says that something was", large, true, llm.Known(20_000), llm.Quota, 1},
		{"it says nothing, and the limit was not known: the next time it is", large, false, llm.Known(0), llm.BadRequest, 2},
		{"a small one", small, true, llm.Known(most), llm.Quota, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refusal := &llm.Error{Kind: llm.Quota, Status: 429, Message: "would exceed the rate limit", Until: time.Now().Add(time.Minute)}
				limit := llm.Limit{Model: "llama", Dimension: llm.InputTokensPerMinute, Refill: llm.Continuous, Max: llm.Known(most), Remaining: x.left, Reset: refusal.Until, Exhausted: true}
				refusal.Limits = []llm.Limit{limit}
				cloud := &answers{err: refusal}
				h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: cloud}, Member{Name: "home", Provider: says("home")})
				if x.known {
					limit.Remaining, limit.Exhausted = llm.Known(most), false
					h.book.Learn("groq", []llm.Limit{limit}, time.Now())
				}
				req := llm.Request{Model: "lone", Purpose: "job", Messages: []llm.Message{llm.Says(llm.User, x.text)}}
				_, err := llm.Collect(h.Stream(t.Context(), req))
				if x.sent == 2 {
					if llm.KindOf(err) != llm.Quota {
						t.Errorf("at first: %v", err)
					}
					time.Sleep(2 * time.Minute)
					_, err = llm.Collect(h.Stream(t.Context(), req))
				}
				if llm.KindOf(err) != x.kind || cloud.calls.Load() != x.sent {
					t.Errorf("sent %d times: %v", cloud.calls.Load(), err)
				}
				if x.kind != llm.BadRequest {
					return
				}
				var e *llm.Error
				if !errors.As(err, &e) || !e.TooLong || !strings.Contains(e.Message, "30000 input_tokens/minute") {
					t.Errorf("%v", err)
				}
				req.Model = "big"
				if a, err := llm.Collect(h.Stream(t.Context(), req)); err != nil || a.Message.Text() != "home" {
					t.Errorf("the fallback: %+v, %v", a, err)
				}
			})
		})
	}
}
