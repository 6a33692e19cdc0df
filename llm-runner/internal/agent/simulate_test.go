package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Ninety days around each change of the clock in Berlin, with a week in which the machine is off, a restart each day and a Discord that is away
// now and then. Every due time is seen to exactly as its agent's policy says.
func TestNinetyDays(t *testing.T) {
	if testing.Short() {
		t.Skip("two times ninety days take minutes under the race detector, and what runs at once in them runs in the other tests too")
	}
	for name, begin := range map[string]string{"to summer time": "2026-02-12 11:00", "back to winter time": "2026-09-08 11:00"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{
				"night":   "---\nschedule: \"30 2 * * *\"\ntimezone: Europe/Berlin\nmissed: run\ndeliver: [discord]\nmodel: none\nkind: briefing\n---\n",
				"morning": "---\nschedule: \"0 7 * * *\"\ntimezone: Europe/Berlin\nmissed: once\ndeliver: [daily, discord]\nkind: briefing\n---\n",
				"office":  "---\nschedule: \"0 9 * * 1-5\"\ntimezone: America/New_York\nmissed: skip\ndeliver: [vault]\n---\nSay it.\n",
			})
			b.at(at(t, begin))
			start := b.clock()
			end := start.AddDate(0, 0, 90)
			off, on := start.AddDate(0, 0, 60).Add(5*time.Hour), start.AddDate(0, 0, 67).Add(2*time.Hour)
			b.config.Facts.Changed = func(_ context.Context, since time.Time) ([]Changed, error) {
				if since.After(b.clock()) || b.clock().Sub(since) > mostSince {
					t.Errorf("a briefing since %v at %v", since, b.clock())
				}
				var all []Changed
				for i := range 12 { // more than one message holds
					all = append(all, Changed{Path: fmt.Sprintf("notes/%d.md", i), Title: strings.Repeat("🌻 A note whose name is long. ", 8)})
				}
				return all, nil
			}
			b.model.answer = func(int, llm.Request) (string, error) { return "All of it is quiet.", nil }
			tries := 0
			b.posts.fault = func() (time.Duration, error) { // of seven tries two fail
				if tries++; tries%7 == 5 || tries%7 == 6 {
					return time.Second, errors.New("Discord does not answer")
				}
				return 0, nil
			}
			b.start()
			b.settle()
			for day := 1; day <= 90; day++ {
				next := start.AddDate(0, 0, day)
				if next.After(off) && next.Before(on) {
					continue // nobody is there
				}
				if b.clock().Before(off) && !next.Before(on) {
					b.until(off)
					b.stop()
					b.at(on)
					b.start()
				}
				b.until(next)
				b.start() // the daily restart
			}
			b.until(end.Add(time.Hour))

			all, err := b.History(t.Context(), "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			covered := map[string]int{}
			for _, r := range all {
				key := r.Agent + " " + r.Due.UTC().Format("2006-01-02 15:04")
				got[key]++
				covered[r.Agent] += r.Covers
				if r.State != Done {
					t.Errorf("%s is %s: %s", key, r.State, r.Reason)
				}
			}
			// What must have run, reckoned day by day from the wall clock and from nothing of the program.
			berlin, york := zone(t, "Europe/Berlin"), zone(t, "America/New_York")
			want, lastMissed := map[string]bool{}, ""
			for day := start.AddDate(0, 0, -1); !day.After(end.AddDate(0, 0, 1)); day = day.AddDate(0, 0, 1) {
				y, m, d := day.In(berlin).Date()
				night := time.Date(y, m, d, 2, 30, 0, 0, berlin)
				if _, offset := night.Zone(); night.In(berlin).Hour() != 2 { // the hour is not there
					night = time.Date(y, m, d, 1, 59, 0, 0, berlin).Add(time.Minute)
				} else if _, before := night.Add(-time.Hour).Zone(); night.Add(-time.Hour).In(berlin).Hour() == 2 && before != offset {
					night = night.Add(-time.Hour) // there are two: the first
				}
				in := func(x time.Time) bool { return x.After(start) && !x.After(end.Add(time.Hour)) }
				missed := func(x time.Time) bool { return !x.Before(off) && x.Before(on) }
				if in(night) {
					want["night "+night.UTC().Format("2006-01-02 15:04")] = true
				}
				if x := time.Date(y, m, d, 7, 0, 0, 0, berlin); in(x) {
					if missed(x) {
						lastMissed = "morning " + x.UTC().Format("2006-01-02 15:04")
					} else {
						want["morning "+x.UTC().Format("2006-01-02 15:04")] = true
					}
				}
				y, m, d = day.In(york).Date()
				if x := time.Date(y, m, d, 9, 0, 0, 0, york); in(x) && !missed(x) && x.Weekday() != time.Saturday && x.Weekday() != time.Sunday {
					want["office "+x.UTC().Format("2006-01-02 15:04")] = true
				}
			}
			want[lastMissed] = true
			for key := range want {
				if got[key] != 1 {
					t.Errorf("%s ran %d times", key, got[key])
				}
			}
			for key := range got {
				if !want[key] {
					t.Errorf("%s ran, and should not have", key)
				}
			}
			if covered["morning"] != 90 || len(want) < 200 {
				t.Errorf("the mornings are %d, of %d runs", covered["morning"], len(want))
			}
			seen := map[string]int{}
			for _, post := range b.posts.posts() {
				if n := discord.Length(post); n > discord.MaxContent || n == 0 {
					t.Errorf("a post of %d units", n)
				}
				if strings.HasPrefix(post, "**") {
					seen[strings.SplitN(post, "\n", 2)[0]]++
				}
			}
			for head, n := range seen {
				if n != 1 {
					t.Errorf("%s was posted %d times", head, n)
				}
			}
			open, err := deliveries(t.Context(), b.db.Read(), `WHERE state <> 'done'`)
			if err != nil || len(open) > 0 {
				t.Errorf("%d deliveries are not done: %v", len(open), err)
			}
			t.Logf("%d runs, %d posts, %d tries, %d questions", len(all), len(b.posts.posts()), b.posts.tries, b.model.count())
		})
	}
}
