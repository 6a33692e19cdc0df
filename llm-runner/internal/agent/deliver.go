package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/engine"
)

const (
	giveUp      = 24 * time.Hour // a briefing of the day before is not worth a message any more
	firstRetry  = 5 * time.Second
	mostRetry   = 10 * time.Minute
	mostPosts   = 3 // messages of one run at one place
	vaultIsAway = 30 * time.Second
)

// deliveriesOf are the notes and messages that a run's output becomes.
func (s *Service) deliveriesOf(a Agent, r *Run, now time.Time) (all []Delivery) {
	out := r.Output
	add := func(sink, name, text, missing string) {
		d := Delivery{Run: r.ID, Sink: sink, Part: 1, Name: name, Text: text, State: "waiting", NextAt: now, Made: now}
		for _, x := range all {
			if x.Sink == sink {
				d.Part++
			}
		}
		if missing != "" {
			d.State, d.Reason, d.Ended, d.NextAt = "skipped", missing, now, time.Time{}
		}
		all = append(all, d)
	}
	for _, sink := range a.Deliver {
		switch sink {
		case "vault", "daily":
			missing := ""
			if s.config.Vault == "" {
				missing = "there is no vault: name one with vault.path"
			}
			if sink == "daily" {
				add(sink, "", "## "+a.Title+"\n\n"+out.Text, missing)
				continue
			}
			notes := out.Notes
			if len(notes) == 0 {
				notes = []Note{{Name: r.Due.In(a.Schedule.zone).Format(time.DateOnly), Title: out.Title, Text: out.Text}}
			}
			for _, n := range notes {
				add(sink, a.Name+"/"+n.Name, fmt.Sprintf("---\n%stitle: %s\ncreated: %s\n---\n\n# %s\n\n%s\n", owned(a.Name, r.ID), strconv.Quote(n.Title),
					r.Due.In(a.Schedule.zone).Format(time.RFC3339), n.Title, n.Text), missing)
			}
		default:
			to := s.config.Sinks[sink]
			if to == nil {
				add(sink, "", "", sink+" is not configured: see "+sink+" in the configuration, or take it out of deliver")
				continue
			}
			text := out.Outside
			if text == "" {
				text = out.Text
			}
			for _, part := range posts("**"+out.Title+"**\n"+plainLinks(text), to.Max()) {
				add(sink, "", part, "")
			}
		}
	}
	return all
}

var (
	wikiPattern    = regexp.MustCompile(`\[\[([^\[\]|]+)(?:\|([^\[\]]*))?\]\]`)
	headingPattern = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
)

// plainLinks writes a note's links and headings for places that know neither.
func plainLinks(text string) string {
	text = wikiPattern.ReplaceAllStringFunc(text, func(m string) string {
		parts := wikiPattern.FindStringSubmatch(m)
		if parts[2] != "" {
			return parts[2]
		}
		name := parts[1]
		if i := strings.IndexByte(name, '#'); i > 0 {
			name = name[:i]
		}
		return name[strings.LastIndexByte(name, '/')+1:]
	})
	return headingPattern.ReplaceAllString(text, "**$1**")
}

// posts parts a text into messages of at most most UTF-16 units, at the ends of paragraphs or lines where that is possible.
func posts(text string, most int) []string {
	const tail = "\n(the rest is in the vault and on the run's page)"
	text = strings.TrimSpace(text)
	var all []string
	for text != "" {
		if discord.Length(text) <= most {
			all = append(all, text)
			break
		}
		if len(all) == mostPosts-1 {
			all = append(all, strings.TrimRight(text[:room(text, most-discord.Length(tail))], " \n")+tail)
			break
		}
		n := room(text, most)
		if part := strings.TrimSpace(text[:n]); part != "" {
			all = append(all, part)
		}
		text = strings.TrimSpace(text[n:])
	}
	return all
}

// room is how many bytes of text, which is longer, make a message of most units.
func room(text string, most int) int {
	n, units := 0, 0
	for i, c := range text {
		u := 1
		if c > 0xffff {
			u = 2
		}
		if units+u > most {
			break
		}
		units += u
		n = i + len(string(c))
	}
	half := n / 2
	for _, end := range []string{"\n\n", "\n", " "} {
		if i := strings.LastIndex(text[half:n], end); i >= 0 {
			return half + i + len(end)
		}
	}
	return max(n, 1)
}

// post delivers to one place what waits for it, for the engine.
func (s *Service) post(ctx context.Context, key string) error {
	first, rest, _ := strings.Cut(key, "/")
	at := strings.LastIndexByte(rest, '/')
	run, err := strconv.ParseInt(first, 10, 64)
	if err != nil || at < 0 {
		return engine.Final(fmt.Errorf("read key of a delivery %q", key))
	}
	sink := rest[:at]
	call, err := strconv.Atoi(rest[at+1:])
	if err != nil {
		return engine.Final(fmt.Errorf("read key of a delivery %q: %w", key, err))
	}
	all, err := deliveries(ctx, s.db.Read(), `WHERE run = ? AND sink = ? AND call = ? AND ended_at IS NULL AND state IN ('queued', 'sending') ORDER BY part`, run, sink, call)
	if err != nil || len(all) == 0 {
		return err
	}
	r, err := s.Run1(ctx, run)
	if errors.Is(err, ErrNoRun) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		again, err := s.deliver(ctx, &r, &all[i])
		if err != nil {
			return err
		}
		if again {
			for k := i + 1; k < len(all); k++ { // those behind it wait with it
				all[k].State, all[k].NextAt = "waiting", all[i].NextAt
				if err := s.keepDelivery(ctx, r.Agent, &all[k]); err != nil {
					return err
				}
			}
			break
		}
	}
	s.announce()
	return nil
}

// keepDelivery writes a delivery, and the end of its run where it was the last one. A person is told of one that failed for good.
func (s *Service) keepDelivery(ctx context.Context, agent string, d *Delivery) error {
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return s.db.Tx(lasting, func(tx *transaction) error {
		if d.Ended.IsZero() {
			return saveDelivery(lasting, tx, d)
		}
		if err := s.lockRun(lasting, tx, d.Run); errors.Is(err, sql.ErrNoRows) {
			return nil // cancelled, and deleted since: nobody asks for it any more
		} else if err != nil {
			return err
		}
		if err := saveDelivery(lasting, tx, d); err != nil {
			return err
		}
		if told, err := failedElsewhere(lasting, tx, d); err != nil {
			return err
		} else if d.State == "failed" && !told {
			text := fmt.Sprintf("What the agent %s says could not be delivered to %s: %s. It is on the page of run %d.", agent, d.Sink, strings.TrimRight(d.Reason, "."), d.Run)
			if err := s.config.Alerts.News(lasting, tx, text); err != nil {
				return err
			}
		}
		if err := settle(lasting, tx, d.Run, s.config.Now()); err != nil {
			return err
		}
		return s.db.Tell(lasting, tx, topic, "")
	})
}

// deliver makes one delivery; again says that it is to be tried once more, later.
func (s *Service) deliver(ctx context.Context, r *Run, d *Delivery) (again bool, err error) {
	if now, err := s.Run1(ctx, d.Run); err != nil || now.State.Ended() { // a person has cancelled it
		return false, err
	}
	d.State, d.Attempts = "sending", d.Attempts+1
	if err := s.keepDelivery(ctx, r.Agent, d); err != nil {
		return false, err
	}
	s.reached("sending " + d.Sink)
	wait, err := s.send(ctx, r, d)
	now := s.config.Now()
	var gone interface{ Gone() bool }
	switch {
	case err == nil:
		d.State, d.Ended, d.Reason = "done", now, ""
		s.reached("sent " + d.Sink)
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	default:
		d.Reason = s.config.Hide(err.Error())
		final := wait == 0 && !(errors.As(err, &gone) && gone.Gone())
		if wait == 0 {
			wait = mostRetry
		}
		wait = max(wait, min(firstRetry<<min(d.Attempts-1, 12), mostRetry))
		switch {
		case final:
			d.State, d.Ended = "failed", now
		case now.Add(wait).Sub(d.Made) > giveUp:
			d.State, d.Ended = "failed", now
			d.Reason = "given up after a day: " + d.Reason
		default:
			d.State, d.NextAt, again = "waiting", now.Add(wait), true
			if r, err := s.Run1(ctx, d.Run); err == nil && r.State.Ended() {
				d.State, d.NextAt, d.Ended, again = "skipped", time.Time{}, now, false
			}
		}
		if !d.Ended.IsZero() {
			s.log.Warn("what an agent says could not be delivered", "agent", r.Agent, "run", r.ID, "to", d.Sink, "error", d.Reason)
		}
	}
	err = s.keepOn(ctx, r.Agent, d)
	s.reached("marked " + d.Sink)
	return again, err
}

// keepOn is keepDelivery that tries again while the disk refuses: a delivery that was made must not be made again for that.
func (s *Service) keepOn(ctx context.Context, agent string, d *Delivery) error {
	for {
		err := s.keepDelivery(ctx, agent, d)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.log.Error("mark a delivery", "run", d.Run, "to", d.Sink, "error", err)
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

// send puts one delivery where it belongs. again is as with alert.Sink.
func (s *Service) send(ctx context.Context, r *Run, d *Delivery) (again time.Duration, err error) {
	switch d.Sink {
	case "vault":
		d.Place, err = s.writeNote(d)
		return vaultIsAway, err
	case "daily":
		d.Place, err = s.writeDaily(r, d)
		return vaultIsAway, err
	}
	to := s.config.Sinks[d.Sink]
	if to == nil {
		return 0, fmt.Errorf("%s is not configured any more", d.Sink)
	}
	return alert.Pass(ctx, to, fmt.Sprintf("run %d %s %d of %d", d.Run, d.Sink, d.Part, d.Made.UnixMilli()), d.Text)
}
