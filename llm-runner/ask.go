package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/route"
)

var askCommand = command{
	name: "ask", args: `"QUESTION" [flags]`, summary: "ask one question; the answer streams to the terminal",
	help: `Asks one question and prints the answer as it comes. A question of - is read from standard input. Who answers is decided
as everywhere: by the route table. Where a server works on the same data directory, it is asked; else the command answers
by itself. The line on standard error says who answered and why.

Examples:
  llm-runner ask "How do I connect Ollama?"
  llm-runner ask --model llama-70b "Name three good uses of a raspberry pi"
  llm-runner ask --project "Review this plan" < plan.md
  cat notes.md | llm-runner ask - --model gemma4
  llm-runner ask --requires davas "What is on this drawing?" < drawing.svg

Exit codes: 0 answered, 1 failed (an answer broke off, ...), 2 wrong usage, 3 nobody can answer now (standard error says until when), 4 refused for good.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		model := fs.String("model", "", "`MODEL` to ask (default: the route table's)")
		project := fs.Bool("project", false, "project mode: insist on routes.project")
		requires := fs.String("requires", "", "insist on `PROVIDER`")
		return func(ctx context.Context) error {
			question, err := c.question()
			if err != nil {
				return err
			}
			return c.ask(ctx, llm.Request{Model: *model, Project: *project, Requires: *requires, Purpose: "ask",
				Messages: []llm.Message{llm.Says(llm.User, question)}})
		}
	},
}

// maxQuestion bounds what is read from standard input.
const maxQuestion = 8 << 20

// question joins the arguments; "-", or a file on standard input beside them, adds what stands there.
func (c *call) question() (string, error) {
	q := strings.Join(c.args, " ")
	if q == "-" || q != "" && piped(c.stdin) {
		b, err := io.ReadAll(io.LimitReader(c.stdin, maxQuestion))
		if err != nil {
			return "", fmt.Errorf("read standard input: %w", err)
		}
		q = strings.TrimSpace(strings.TrimPrefix(q, "-") + "\n\n" + string(b))
	}
	if strings.TrimSpace(q) == "" {
		return "", usageError{`what is the question? Write it in quotes, or - to read it from standard input`}
	}
	return q, nil
}

// piped says that standard input is a file or a pipe that was meant for us.
func piped(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && (st.Mode().IsRegular() && st.Size() > 0 || st.Mode()&os.ModeNamedPipe != 0)
}

func (c *call) ask(ctx context.Context, req llm.Request) error {
	config, err := Load(c.Options)
	if err != nil {
		return err
	}
	var p llm.Provider
	var by *llm.Route // the server's answers do not say why; its decision does
	if bell, ok := running(config.Data); ok {
		var d route.Decision
		if err := bell.get(ctx, "/api/route?"+routeQuery(route.Ask{Model: req.Model, Project: req.Project, Requires: req.Requires}), &d); err != nil {
			return err
		}
		if len(d.Targets) > 0 {
			by = &llm.Route{Provider: d.Targets[0].Provider, Model: d.Targets[0].Model, Rule: d.Rule, Why: d.Why}
		}
		header := http.Header{}
		if req.Project {
			header.Set("X-Runner-Project", "true")
		}
		if req.Requires != "" {
			header.Set("X-Runner-Requires", req.Requires)
		}
		p = openai.New(openai.Config{Name: "llm-runner", URL: bell.URL + "/v1", Key: bell.Token, Header: header})
	} else {
		a, err := assemble(ctx, config, quiet(), nil)
		if err != nil {
			return err
		}
		defer a.close()
		a.start()
		a.survey(ctx)
		stop := c.watchReading(a.library)
		_, err = a.library.Sync(ctx)
		stop()
		if err != nil {
			return err
		}
		p = a.router
	}
	if err := c.print(p.Stream(ctx, req)); err != nil || by == nil {
		return err
	}
	c.credit(by)
	return nil
}

// print writes the answer to standard output as it comes, and who answered to standard error.
func (c *call) print(stream func(func(llm.Event, error) bool)) error {
	var by *llm.Route
	ends := true // whether the output ends with a newline
	for ev, err := range stream {
		if err != nil {
			if !ends {
				fmt.Fprintln(c.stdout)
			}
			return unwrapBusy(err)
		}
		if ev.Route != nil {
			by = ev.Route
		}
		if ev.Text != "" {
			if _, err := io.WriteString(c.stdout, ev.Text); err != nil {
				return err
			}
			ends = strings.HasSuffix(ev.Text, "\n")
		}
	}
	if !ends {
		fmt.Fprintln(c.stdout)
	}
	if by != nil {
		c.credit(by)
	}
	return nil
}

// credit says who answered, and why.
func (c *call) credit(r *llm.Route) {
	fmt.Fprintf(c.stderr, "(%s: %s)\n", llm.On(r.Model, r.Provider), r.Why)
}

// unwrapBusy turns a server's "nobody can answer now" back into what it was.
func unwrapBusy(err error) error {
	var e *llm.Error
	if errors.As(err, &e) && (e.Kind == llm.Quota || e.Kind == llm.Overload) {
		return &llm.BusyError{Provider: e.Provider, Model: e.Model, Reason: e.Message, Kind: e.Kind, Until: e.Until, Err: err}
	}
	return err
}
