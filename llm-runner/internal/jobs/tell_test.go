package jobs

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// told returns what was written down to be told, oldest first.
func told(t *testing.T, s *Service) []alert.Alert {
	t.Helper()
	all, err := alert.List(t.Context(), s.db, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

func withAlerts(t *testing.T, f func(ctx context.Context, req llm.Request, n int) (string, error)) *Service {
	t.Helper()
	return openWith(t, filepath.Join(t.TempDir(), db.Name), &answers{answer: f}, func(d *db.DB) *alert.Service {
		a, err := alert.Open(t.Context(), d, alert.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}

func TestWhoAsksIsToldOfTheEndInItsTransaction(t *testing.T) {
	s := withAlerts(t, func(_ context.Context, req llm.Request, _ int) (string, error) {
		if req.Messages[0].Text() == "bad" {
			return "", &llm.Error{Kind: llm.BadRequest, Message: "no such thing"}
		}
		return "good", nil
	})
	for _, tt := range []struct {
		prompt string
		notify Notify
		end    State
		want   string // "" nobody is told
	}{
		{"good", NotifyNever, Done, ""},
		{"good", NotifyFailure, Done, ""},
		{"bad", NotifySuccess, Failed, ""},
		{"good", NotifySuccess, Done, "(good) is done, answered by m on p, "},
		{"good", NotifyAlways, Done, "is done"},
		{"bad", NotifyFailure, Failed, "(bad) has failed: no such thing. Try it again with: llm-runner job retry "},
		{"bad", NotifyAlways, Failed, "has failed"},
	} {
		before := len(told(t, s))
		j := submit(t, s, Spec{Prompt: tt.prompt, Notify: tt.notify})
		reach(t, s, j.ID, tt.end)
		after := told(t, s)[before:]
		if tt.want == "" && len(after) > 0 || tt.want != "" && (len(after) != 1 || !strings.Contains(after[0].Text, tt.want)) {
			t.Errorf("%+v: told %+v", tt, after)
		}
	}
	j := submit(t, s, Spec{Prompt: "bad", Notify: NotifyFailure, Deadline: "1ms"})
	reach(t, s, j.ID, Failed)
}

func TestAUsedUpLimitIsOneIncidentForAllJobs(t *testing.T) {
	until := time.Now().Add(time.Hour)
	s := withAlerts(t, func(context.Context, llm.Request, int) (string, error) {
		return "", &llm.BusyError{Provider: "groq", Kind: llm.Quota, Dimension: llm.RequestsPerDay, Reason: "groq: all 1000 requests/day used up", Until: until}
	})
	for range 3 {
		reach(t, s, submit(t, s, Spec{Prompt: "x"}).ID, Held)
	}
	all := told(t, s)
	if len(all) != 1 || all[0].Key != "quota/groq/requests/day" || all[0].Jobs != 3 || !all[0].Ended.IsZero() ||
		all[0].Text != "groq: all 1000 requests/day used up. Work that needs it is held until "+until.Format("Mon 15:04:05")+"." {
		t.Errorf("told %+v", all)
	}
	if held, err := s.Held(t.Context(), "groq", 2); err != nil || len(held) != 2 {
		t.Errorf("%v, %v", held, err)
	}
}
