package agent

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Brief is what a briefing is made of.
type Brief struct {
	Since    time.Time `json:"since"`
	Sections []Section `json:"sections"`
}

const (
	leadPatience = 15 * time.Minute // how long a briefing waits for its lead: then it comes without
	mostSince    = 7 * 24 * time.Hour
	mostLead     = 900 // characters

	mostLeadTokens = 600
	bytesPerToken  = 3 // or more, in any language that is written with letters
)

// briefing tells what has happened: facts by rules, and a lead that a model writes from them alone.
func (x *runner) briefing() (out Output, err error) {
	b, err := stepJSON(x, "facts", func() (Brief, string, error) {
		since, err := x.since()
		if err != nil {
			return Brief{}, "", err
		}
		all := gather(x.ctx, x.s.config.Facts, x.agent.Searches, x.agent.Feeds, since, x.s.config.Now().In(x.agent.Schedule.zone))
		if err := x.ctx.Err(); err != nil {
			return Brief{}, "", err
		}
		n := 0
		for _, s := range all {
			n += len(s.Facts) + s.More
		}
		return Brief{since, all}, count(int64(n), "fact"), nil
	})
	if err != nil {
		return out, err
	}
	l, err := x.lead(b)
	if err != nil {
		return out, err
	}
	out.Title = fmt.Sprintf("%s, %s", x.agent.Title, x.due().Format("Monday 2 January 2006"))
	out.Text = b.markdown(l.Text, false)
	outside := l.Text
	if l.Private {
		outside = ""
	}
	out.Outside = b.markdown(outside, true)
	if l.Remark != "" {
		out.Remarks = append(out.Remarks, l.Remark)
	}
	return out, nil
}

// since is from when on a briefing tells: the last one, or a day; a week at most.
func (x *runner) since() (time.Time, error) {
	last, err := lastDone(x.ctx, x.s.db, x.run)
	now := x.s.config.Now()
	switch {
	case err != nil:
		return last, err
	case last.IsZero() || now.Sub(last) < time.Hour:
		return now.Add(-24 * time.Hour), nil
	case now.Sub(last) > mostSince:
		return now.Add(-mostSince), nil
	}
	return last, nil
}

// A Lead is what a model wrote above the facts.
type Lead struct {
	Text    string `json:"text"`
	Private bool   `json:"private,omitempty"` // it rests on what must not leave this machine
	Remark  string `json:"remark,omitempty"`  // why there is none
}

// leadSystem has a model keep to the facts.
const leadSystem = "You write the opening of a person's morning briefing from a list of facts. Write three or four short sentences of plain prose: what matters most today, first what is " +
	"wrong or late. Use nothing but the facts: add no number, name, cause or advice that is not there. No heading, no list, no greeting."

// lead has a model write the opening, where there is one.
func (x *runner) lead(b Brief) (Lead, error) {
	if x.agent.Model == noModel || len(b.Sections) == 0 || x.s.config.Ask == nil || !x.s.config.Writer() {
		return Lead{}, nil
	}
	over := x.s.config.Now().Sub(x.run.Started) >= leadPatience
	l, err := stepJSON(x, "lead", func() (Lead, string, error) {
		if over {
			return Lead{Remark: "no model had time for a lead within " + leadPatience.String() + ": the facts stand alone"}, "left out", nil
		}
		req := llm.Request{Model: x.agent.Model, Purpose: "agent", MaxTokens: mostLeadTokens, Messages: []llm.Message{llm.Says(llm.System, leadSystem)}}
		if x.agent.Prompt != "" {
			req.Messages = append(req.Messages, llm.Says(llm.User, "How the person wants it:\n"+x.filled()))
		}
		m := llm.Message{Role: llm.User, Parts: []llm.Part{{Text: "The facts:\n"}}}
		private := false
		for _, s := range b.Sections {
			m.Parts = append(m.Parts, llm.Part{Text: "\n" + s.Name + "\n"})
			for _, f := range s.Facts {
				private = private || f.Private
				m.Parts = append(m.Parts, llm.Part{Text: "- " + plainLinks(f.Text) + "\n", Private: f.Private})
			}
			if s.More > 0 {
				m.Parts = append(m.Parts, llm.Part{Text: fmt.Sprintf("- and %d more\n", s.More)})
			}
		}
		req.Messages = append(req.Messages, m)
		budget, size := x.agent.Budget, int64(0)
		for _, m := range req.Messages {
			size += int64(len(m.Text()))
		}
		if size/bytesPerToken+mostLeadTokens > budget.Tokens {
			x.run.Over = fmt.Sprintf("%d tokens", budget.Tokens)
			return Lead{Remark: fmt.Sprintf("the facts are too long for a lead within %s: the facts stand alone", x.run.Over)}, "left out", nil
		}
		ctx, cancel := context.WithTimeout(x.ctx, budget.Time)
		defer cancel()
		a, err := llm.Collect(x.s.config.Ask.Stream(ctx, req))
		if err != nil && ctx.Err() != nil && x.ctx.Err() == nil {
			x.run.Over = budget.Time.String()
			return Lead{Remark: fmt.Sprintf("the model had not written a lead within %s: the facts stand alone", x.run.Over)}, "left out", nil
		}
		if err != nil {
			return Lead{}, "", err
		}
		x.spend(a)
		l := Lead{Text: prose(a.Message.Text()), Private: private && (a.Route == nil || a.Route.Withheld == 0) || a.Private}
		if why := unfounded(l.Text, b); why != "" {
			return Lead{Remark: why}, "left out", nil
		}
		return l, "", nil
	})
	var busy *llm.BusyError
	switch {
	case err == nil || x.ctx.Err() != nil:
		return l, err
	case errors.As(err, &busy):
		until := x.run.Started.Add(leadPatience)
		if now := x.s.config.Now(); !busy.Until.IsZero() && busy.Until.After(now) && busy.Until.Before(until) {
			until = busy.Until
		}
		return l, &waitError{until, busy.Reason + "; the briefing comes without a lead at " + x.run.Started.Add(leadPatience).In(x.agent.Schedule.zone).Format("15:04"), busy.Provider}
	case llm.KindOf(err) != "" && (llm.KindOf(err).Permanent() || x.run.attempts >= 2): // a briefing by rules is better than none
		return stepJSON(x, "lead", func() (Lead, string, error) {
			return Lead{Remark: "no lead: " + err.Error()}, "left out", nil
		})
	}
	return l, err
}

var (
	numberPattern = regexp.MustCompile(`\d+(?:[.,:]\d+)*`)
	tagPattern    = regexp.MustCompile(`<[^<>]*>`)
)

// unfounded says what of a lead the facts do not have, as far as a program can tell: numbers. "" nothing.
func unfounded(lead string, b Brief) string {
	known := map[string]bool{}
	for _, s := range b.Sections {
		text := fmt.Sprint(s.Name, " ", len(s.Facts), " ", len(s.Facts)+s.More, " ", s.More)
		for _, f := range s.Facts {
			text += " " + f.Text
		}
		for _, n := range numberPattern.FindAllString(text, -1) {
			known[n] = true
		}
	}
	for _, n := range numberPattern.FindAllString(lead, -1) {
		if !known[n] {
			return fmt.Sprintf("the model's lead named %s, which is in none of the facts, and was left out", n)
		}
	}
	return ""
}

// prose is what a model wrote as plain sentences: no markup, no links, bounded.
func prose(text string) string {
	text = wikiPattern.ReplaceAllString(text, "$1")
	text = tagPattern.ReplaceAllString(text, "")
	text = headingPattern.ReplaceAllString(text, "$1")
	text = strings.NewReplacer("[", "(", "]", ")", "`", "'", "<", "‹").Replace(text)
	return cut(strings.Join(strings.Fields(text), " "), mostLead)
}

// markdown is the briefing; outside leaves out what must not leave this machine.
func (b Brief) markdown(lead string, outside bool) string {
	var s strings.Builder
	if lead != "" {
		s.WriteString(lead + "\n\n")
	}
	hidden := 0
	for _, sec := range b.Sections {
		var lines []string
		for _, f := range sec.Facts {
			if f.Private && outside {
				hidden++
				continue
			}
			lines = append(lines, "- "+f.Text)
		}
		if len(lines) == 0 {
			continue
		}
		mark := ""
		if sec.Wrong {
			mark = " (!)"
		}
		fmt.Fprintf(&s, "### %s%s\n\n%s\n", sec.Name, mark, strings.Join(lines, "\n"))
		if sec.More > 0 {
			fmt.Fprintf(&s, "- and %d more\n", sec.More)
		}
		s.WriteString("\n")
	}
	if hidden > 0 {
		fmt.Fprintf(&s, "%s of private notes %s in the vault only.\n", count(int64(hidden), "line"), map[bool]string{true: "is", false: "are"}[hidden == 1])
	}
	if s.Len() == 0 {
		return "Nothing has happened that you would have to know of."
	}
	return strings.TrimSpace(s.String())
}
