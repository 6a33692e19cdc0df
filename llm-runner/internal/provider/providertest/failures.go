package providertest

import (
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// clean checks what holds for every error.
func (s Suite) clean(t *testing.T, e *llm.Error) {
	t.Helper()
	if strings.Contains(e.Error(), Key) || strings.Contains(string(e.Body), Key) {
		t.Errorf("the key is in the error %q", e.Error())
	}
	if e.Error() == "" {
		t.Error("the error says nothing")
	}
	if e.Started && e.Status >= 400 {
		t.Errorf("refused with %d and yet started", e.Status)
	}
}

func (s Suite) refusals(t *testing.T) {
	for _, tt := range []struct {
		fault  script.Fault
		want   llm.Kind
		until  bool // must tell when
		status int
		needs  []Feature
	}{
		{fault: script.Fault{Kind: script.RateLimited, Wait: 90 * time.Second}, want: llm.Quota, until: true, status: 429, needs: []Feature{Limits}},
		{fault: script.Fault{Kind: script.RateNoHint}, want: llm.Quota, status: 429, needs: []Feature{Limits}},
		{fault: script.Fault{Kind: script.Spend}, want: llm.Spend, needs: []Feature{Spend}},
		{fault: script.Fault{Kind: script.BadKey}, want: llm.Auth, status: 401},
		{fault: script.Fault{Kind: script.Forbidden}, want: llm.Auth, status: 403},
		{fault: script.Fault{Kind: script.NoModel}, want: llm.NotFound, status: 404},
		{fault: script.Fault{Kind: script.BadRequest}, want: llm.BadRequest, status: 400},
		{fault: script.Fault{Kind: script.TooLarge}, want: llm.BadRequest, status: 413},
		{fault: script.Fault{Kind: script.Internal}, want: llm.Unavailable, status: 500},
		{fault: script.Fault{Kind: script.BadGateway}, want: llm.Unavailable, status: 502},
		{fault: script.Fault{Kind: script.Busy}, want: llm.Overload, status: 503},
		{fault: script.Fault{Kind: script.GatewayTimeout}, want: llm.Unavailable, status: 504},
		{fault: script.Fault{Kind: script.Overloaded}, want: llm.Overload, status: 529},
	} {
		t.Run(string(tt.fault.Kind), func(t *testing.T) {
			s.needs(t, tt.needs...)
			sub := s.Open(t, Scenario{Script: script.Script{Faults: []script.Fault{tt.fault}}})
			before := time.Now()
			e := s.failure(t, sub, s.request("hello"))
			s.clean(t, e)
			if e.Kind != tt.want || e.Started {
				t.Errorf("got %+v, want kind %s", e, tt.want)
			}
			status := tt.status
			if own, ok := s.Statuses[tt.fault.Kind]; ok {
				status = own
			}
			if sub.Upstream != nil && status != 0 && e.Status != status {
				t.Errorf("status %d, want %d", e.Status, status)
			}
			if got := e.Until.Sub(before); tt.until && (got < tt.fault.Wait-time.Second || got > tt.fault.Wait+10*time.Second) {
				t.Errorf("come back in %s, was told %s", got, tt.fault.Wait)
			}
			if tt.until && len(e.Limits) == 0 {
				t.Error("tells no limit")
			}
		})
	}
	t.Run("a wrong key", func(t *testing.T) {
		s.needs(t, Keys)
		sub := s.Open(t, Scenario{Script: script.Script{Key: Key + "-other"}})
		e := s.failure(t, sub, s.request("hello"))
		s.clean(t, e)
		if e.Kind != llm.Auth {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("the right key", func(t *testing.T) {
		s.needs(t, Keys)
		sub := s.Open(t, Scenario{Script: script.Script{Key: Key}})
		if _, _, err := s.ask(t, sub, s.request("hello")); err != nil {
			t.Error(err)
		}
	})
	t.Run("an unknown model", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: script.Script{Models: []string{"another"}}})
		e := s.failure(t, sub, s.request("hello"))
		if e.Kind != llm.NotFound || e.Started {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		s.needs(t, HTTP)
		sub := s.Open(t, Scenario{Dead: true})
		e := s.failure(t, sub, s.request("hello"))
		s.clean(t, e)
		if e.Kind != llm.Unavailable || e.Started || e.Status != 0 {
			t.Errorf("got %+v", e)
		}
	})
	for _, kind := range []script.FaultKind{script.ResetBeforeHeaders, script.StallBeforeHeaders} {
		t.Run(string(kind), func(t *testing.T) {
			s.needs(t, HTTP)
			sub := s.Open(t, Scenario{Script: script.Script{Faults: []script.Fault{{Kind: kind}}}, Silence: 200 * time.Millisecond})
			e := s.failure(t, sub, s.request("hello"))
			if e.Kind != llm.Unavailable || e.Started {
				t.Errorf("got %+v", e)
			}
		})
	}
	for _, kind := range []script.FaultKind{script.HTML200, script.Error200} {
		t.Run(string(kind), func(t *testing.T) {
			s.needs(t, HTTP)
			sub := s.Open(t, Scenario{Script: script.Script{Faults: []script.Fault{{Kind: kind}}}})
			e := s.failure(t, sub, s.request("hello"))
			s.clean(t, e)
			if e.Kind.Permanent() || e.Started {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func (s Suite) breaks(t *testing.T) {
	const text = "one two three four five six seven eight nine ten"
	for _, kind := range []script.FaultKind{script.ResetMidStream, script.StallMidStream, script.MalformedChunk, script.ErrorMidStream, script.Truncate} {
		t.Run(string(kind), func(t *testing.T) {
			if kind == script.MalformedChunk {
				s.needs(t, HTTP)
			}
			x := Scenario{Script: script.Script{Reply: []script.Rule{{Text: text}}, Faults: []script.Fault{{Kind: kind}}}}
			if kind == script.StallMidStream {
				x.Silence = 2 * time.Second // a busy machine is silent for a while, too, before the first word
			}
			sub := s.Open(t, x)
			a, _, err := s.ask(t, sub, s.request("count"))
			e, ok := err.(*llm.Error)
			if !ok {
				t.Fatalf("got %v with %q, want an *llm.Error", err, a.Message.Text())
			}
			s.clean(t, e)
			if !e.Started || e.Kind.Permanent() || e.Kind == llm.Cancelled {
				t.Errorf("got %+v", e)
			}
			if got := a.Message.Text(); got == "" || !strings.HasPrefix(text, got) {
				t.Errorf("what came before the break was %q", got)
			}
		})
	}
	t.Run("after the finish the answer is whole", func(t *testing.T) {
		s.needs(t, HTTP)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: text}}, Faults: []script.Fault{{Kind: script.ResetAfterFinish}}}})
		a, _, err := s.ask(t, sub, s.request("count"))
		if err != nil || a.Message.Text() != text {
			t.Errorf("got %q, %v", a.Message.Text(), err)
		}
	})
}

func (s Suite) disguises(t *testing.T) {
	s.needs(t, HTTP)
	const text = "one two \U0001F600 three"
	for _, kinds := range [][]script.FaultKind{
		{script.NoDone}, {script.SlowDrip}, {script.Gzip}, {script.SplitEveryByte}, {script.CRLF}, {script.HugeEvent}, {script.Comments},
		{script.JSON200}, {script.BytesAfterDone}, {script.CRLF, script.SplitEveryByte, script.Comments}, {script.Gzip, script.HugeEvent},
	} {
		var name []string
		var faults []script.Fault
		for _, k := range kinds {
			name = append(name, string(k))
			faults = append(faults, script.Fault{Kind: k})
		}
		t.Run(strings.Join(name, "+"), func(t *testing.T) {
			sub := s.Open(t, Scenario{Script: script.Script{
				Reply:  []script.Rule{{Text: text, Usage: &script.Usage{Input: num(7), Output: num(4)}}},
				Faults: faults,
			}})
			a, _, err := s.ask(t, sub, s.request("count"))
			if err != nil || a.Message.Text() != text || a.Finish != llm.FinishStop || a.Usage.Output != llm.Known(4) {
				t.Errorf("got %q, finish %q, usage %+v, %v", a.Message.Text(), a.Finish, a.Usage, err)
			}
		})
	}
}
