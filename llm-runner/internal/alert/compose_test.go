package alert

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/internal/discord"
)

func TestOneMessageTellsOfAllThatIsDue(t *testing.T) {
	now := time.Date(2026, 11, 22, 15, 0, 0, 0, time.Local)
	ago := func(m time.Duration) time.Time { return now.Add(-m * time.Minute) }
	incident := func(told Telling, began, ended time.Time) Alert {
		return Alert{Key: "k", Text: "davas is down.", Began: began, due: began, Ended: ended, Over: "davas is back", Told: told}
	}
	news := func(text string, at time.Time) Alert { return Alert{Text: text, Began: at, Ended: at, due: at} }
	for name, tt := range map[string]struct {
		all  []Alert
		want string
	}{
		"begins": {[]Alert{incident(Untold, now, time.Time{})}, "davas is down."},
		"ends":   {[]Alert{incident(Beginning, ago(64), now)}, "davas is back after 1h4m."},
		"both":   {[]Alert{incident(Untold, ago(1), now)}, "davas is down. It is over: davas is back after 1m0s."},
		"late": {[]Alert{incident(Untold, ago(60), ago(50)), news("Job 1 is done.", ago(40)), news("Job 2 is done.", now)},
			"While Discord could not be reached:\n- Sun 14:10 davas is down. It is over: davas is back after 10m0s.\n- Sun 14:20 Job 1 is done.\nJob 2 is done."},
		"equal":           {[]Alert{news("x", now), news("y", now), news("x", now), news("x", now)}, "x (3 times)\ny"},
		"incidents first": {[]Alert{news("x", now), incident(Untold, now, time.Time{})}, "davas is down.\nx"},
		"one held job":    {[]Alert{{Key: "k", Began: ago(2), Ended: now, Over: "ok", Told: Beginning, Jobs: 1, Longest: 90_000}}, "ok after 2m0s; 1 job was held for it, up to 1m30s."},
	} {
		text, taken := compose(now, tt.all, 2000, "Discord", "")
		if text != tt.want || len(taken) != len(tt.all) {
			t.Errorf("%s: %d of %d taken: %q", name, len(taken), len(tt.all), text)
		}
	}
}

func TestMessagesKeepToTheirLengthAndLeaveTheRest(t *testing.T) {
	now := time.Now()
	for _, at := range []time.Time{now, now.Add(-time.Hour)} {
		for _, n := range []int{1, 30, 201, 5000} {
			var all []Alert
			for i := range n {
				all = append(all, Alert{ID: int64(i + 1), Text: fmt.Sprintf("%d %s", i, strings.Repeat("\U0001F600", 900)), Began: at, Ended: at, due: at})
			}
			seen := map[int64]bool{}
			messages := 0
			for len(all) > 0 {
				text, taken := compose(now, all, 2000, "Discord", "")
				if len(taken) == 0 || discord.Length(text) > 2000 {
					t.Fatalf("of %d: %d taken, %d units", n, len(taken), discord.Length(text))
				}
				for _, a := range taken {
					if seen[a.ID] {
						t.Fatal("told twice")
					}
					seen[a.ID] = true
				}
				messages++
				var rest []Alert
				for _, a := range all {
					if !seen[a.ID] {
						rest = append(rest, a)
					}
				}
				all = rest
			}
			if len(seen) != n || messages > 10 {
				t.Errorf("%d of %d told in %d messages", len(seen), n, messages)
			}
		}
	}
}

func TestWhatBelongsToOneIncidentIsPutTogether(t *testing.T) {
	now := time.Now()
	begin := func() *Alert { return &Alert{Key: "k", Began: now, due: now.Add(time.Minute)} }
	end := &Alert{Key: "k", Ended: now.Add(time.Second), Over: "over", endOnly: true}
	if out := fold([]*Alert{begin(), begin(), end}); len(out) != 1 || !out[0].passed() {
		t.Errorf("%+v", out)
	}
	told := begin()
	told.Told = Beginning
	if out := fold([]*Alert{told, end, begin()}); len(out) != 2 || out[0].Over != "over" || !out[1].Ended.IsZero() {
		t.Errorf("%+v", out)
	}
	if out := fold([]*Alert{end, begin(), {Text: "news"}, {Text: "news"}}); len(out) != 4 {
		t.Errorf("%d are left", len(out))
	}
}
