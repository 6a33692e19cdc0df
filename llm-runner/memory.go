package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"home.arpa/lab/llm-runner/internal/memory"
)

var memoryCommand = command{
	name: "memory", args: "list|show|learn|add|edit|forget|undo|resolve [ARGUMENT] [flags]", summary: "see and change what is remembered about you",
	help: `Facts about you, each with the words of yours that it comes from.

  list             current facts, and contradictions that wait for your word; --all has history too
  show NUMBER      a fact with its sources
  learn            read what you have written since the last time; what private conversations say is read by a model of your own machines only
  add TEXT         keep a fact that you write
  edit NUMBER TEXT give a fact another text
  undo [NUMBER]    take back the last change, of a fact or of all
  resolve NUMBER older|newer|both   say what holds of a contradiction
  forget NUMBER    remove a fact for good, from every file; its message stays, and nothing can be undone

Examples:
  llm-runner memory learn
  llm-runner memory list --json
  llm-runner memory edit 12 'The user lives in Bonn'
  llm-runner memory forget 12

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 no model can read now (what was read is kept).`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		all := fs.Bool("all", false, "of list: also what was replaced or taken back")
		return func(ctx context.Context) error {
			do, err := c.memoryVerb(*all, *asJSON)
			if err != nil {
				return err
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			if bell, ok := running(config.Data); ok {
				return do(ctx, remote{bell})
			}
			a, err := assemble(ctx, config, quiet(), nil)
			if err != nil {
				return err
			}
			defer a.close()
			a.start()
			if c.args[0] == "learn" {
				a.survey(ctx)
			}
			return do(ctx, a.memory)
		}
	},
}

// A remembering is what remembers as the command reaches it: through the server, or itself.
type remembering interface {
	List(ctx context.Context, state memory.State) ([]memory.Fact, error)
	Conflicts(ctx context.Context) ([]memory.Conflict, error)
	One(ctx context.Context, id int64) (memory.Fact, error)
	Learn(ctx context.Context, run string) (memory.Report, error)
	Add(ctx context.Context, text string) (memory.Fact, error)
	Edit(ctx context.Context, id int64, text string) (memory.Fact, error)
	Undo(ctx context.Context, fact int64) (memory.Undoing, error)
	Resolve(ctx context.Context, conflict int64, holds string) error
	Forget(ctx context.Context, id int64) error
}

// memoryVerb checks the command line and returns what it asks for.
func (c *call) memoryVerb(all, asJSON bool) (func(context.Context, remembering) error, error) {
	if len(c.args) == 0 {
		return nil, usageError{"say what to do: list, show, learn, add, edit, forget, undo or resolve"}
	}
	verb, rest := c.args[0], c.args[1:]
	id := int64(0)
	takes := map[string][2]int{"list": {0, 0}, "learn": {0, 0}, "show": {1, 1}, "add": {1, 99}, "edit": {2, 99}, "forget": {1, 1}, "undo": {0, 1}, "resolve": {2, 2}}
	n, known := takes[verb]
	switch {
	case !known:
		return nil, usageError{fmt.Sprintf("there is no memory %s: say list, show, learn, add, edit, forget, undo or resolve", verb)}
	case len(rest) < n[0] || len(rest) > n[1]:
		return nil, usageError{fmt.Sprintf("memory %s takes another number of arguments than %d", verb, len(rest))}
	case verb != "add" && len(rest) > 0:
		var err error
		if id, err = strconv.ParseInt(rest[0], 10, 64); err != nil || id <= 0 {
			return nil, usageError{fmt.Sprintf("%q is not the number of a fact: memory list shows them", rest[0])}
		}
	}
	fact := func(f memory.Fact, err error) error {
		if err != nil {
			return err
		}
		return c.printFact(f, asJSON)
	}
	done := func(says string, err error) error {
		if err == nil && asJSON {
			return c.printJSON(map[string]bool{"done": true})
		}
		if err == nil {
			fmt.Fprintln(c.stdout, says)
		}
		return err
	}
	return func(ctx context.Context, m remembering) error {
		switch verb {
		case "list":
			return c.listFacts(ctx, m, all, asJSON)
		case "show":
			return fact(m.One(ctx, id))
		case "add":
			return fact(m.Add(ctx, strings.Join(rest, " ")))
		case "edit":
			return fact(m.Edit(ctx, id, strings.Join(rest[1:], " ")))
		case "resolve":
			return done("It is decided: "+rest[1]+".", m.Resolve(ctx, id, rest[1]))
		case "forget":
			return done(fmt.Sprintf("Fact %d is forgotten for good. The message that it came from stays in its conversation.", id), m.Forget(ctx, id))
		case "undo":
			u, err := m.Undo(ctx, id)
			if err == nil && !asJSON {
				fmt.Fprintln(c.stdout, "Taken back: "+map[string]string{"made": "the fact counts no longer", "edited": "its text is as before", "resolved": "the contradiction is open again"}[u.Kind]+".")
			}
			return fact(u.Fact, err)
		}
		r, err := m.Learn(ctx, "command")
		if err != nil {
			return err
		}
		if asJSON {
			return c.printJSON(r)
		}
		fmt.Fprintln(c.stdout, r.Sentence())
		return nil
	}, nil
}

func (c *call) listFacts(ctx context.Context, m remembering, all, asJSON bool) error {
	state := memory.Current
	if all {
		state = ""
	}
	facts, err := m.List(ctx, state)
	if err != nil {
		return err
	}
	open, err := m.Conflicts(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return c.printJSON(map[string]any{"facts": notNil(facts), "conflicts": notNil(open)})
	}
	for _, x := range open {
		fmt.Fprintf(c.stdout, "Contradiction %d: %q (fact %d) or %q (fact %d)? Say memory resolve %d older, newer or both.\n", x.ID, x.Older.Text, x.Older.ID, x.Newer.Text, x.Newer.ID, x.ID)
	}
	if len(facts) == 0 {
		fmt.Fprintln(c.stdout, "Nothing is remembered yet. llm-runner memory learn reads your conversations.")
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		fmt.Fprintf(w, "%d\t%s\t%s\n", f.ID, f.Text, factNote(f))
	}
	return w.Flush()
}

// factNote says in a few words how a fact stands.
func factNote(f memory.Fact) string {
	says := []string{f.Created.Local().Format("2006-01-02"), string(f.Origin)}
	if f.State != memory.Current {
		says = append(says, string(f.State))
	}
	if f.Private {
		says = append(says, "private")
	}
	if n := len(f.Sources); n > 1 {
		says = append(says, fmt.Sprintf("said %d times", n))
	}
	return strings.Join(says, ", ")
}

func (c *call) printFact(f memory.Fact, asJSON bool) error {
	if asJSON {
		return c.printJSON(f)
	}
	fmt.Fprintf(c.stdout, "Fact %d: %s\n  %s\n", f.ID, f.Text, factNote(f))
	for _, s := range f.Sources {
		fmt.Fprintf(c.stdout, "  %q, %s, /chats/%d#m%d\n", s.Quote, s.Said.Local().Format("2006-01-02 15:04"), s.Chat, s.Message)
	}
	return nil
}
