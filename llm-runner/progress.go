package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/progress"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

var progressCommand = command{
	name: "progress", args: "[PROJECT] [flags]", summary: "show where projects stand, from the task lists of your notes",
	help: `A project is a note with "type: project" in its frontmatter; its headings are phases, its task lists what is to be done. Without an
argument all projects are shown; else those whose title has PROJECT in it.

Examples:
  llm-runner progress
  llm-runner progress homelab --json

Exit codes: 0 shown; faults of notes stand on standard error and change nothing about that. 1 failed, 2 wrong usage or configuration.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			if len(c.args) > 1 {
				return usageError{fmt.Sprintf("progress takes one project, but was given %q: put its name in quotation marks", c.args)}
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			board, err := readBoard(ctx, config, *asJSON)
			if err != nil {
				return err
			}
			only := strings.ToLower(strings.Join(c.args, ""))
			if *asJSON {
				return json.NewEncoder(c.stdout).Encode(board.Only(only))
			}
			return c.printBoard(board.Only(only))
		}
	},
}

// readBoard asks the server, where one runs, and reads the notes itself where none does: with the ways up, for which it waits, if ups says so.
func readBoard(ctx context.Context, config *Config, ups bool) (board progress.Board, err error) {
	if bell, ok := running(config.Data); ok {
		return board, bell.ask(ctx, "/api/progress", nil, &board)
	}
	a, err := assemble(ctx, config, quiet(), nil)
	if err != nil {
		return board, err
	}
	defer a.close()
	if _, err := a.library.Sync(ctx); err != nil {
		return board, err
	}
	projects := a.projects()
	if board, err = projects.Board(ctx); err != nil || !ups {
		return board, err
	}
	board.Ups, err = projects.Ups(ctx, board, true)
	return board, err
}

// projects are those of the notes.
func (a *app) projects() *progress.Service {
	return progress.New(progress.Config{DB: a.db, Dir: a.config.Vault.Path, Log: a.log,
		List: func(ctx context.Context) ([]string, error) { return a.library.OfType(ctx, "project") },
		Read: func(ctx context.Context, path string) ([]byte, error) {
			note, err := a.library.Note(ctx, path)
			return note.Text, err
		}})
}

// printBoard draws one bar for each phase.
func (c *call) printBoard(b progress.Board) error {
	if len(b.Rows) == 0 {
		fmt.Fprintln(c.stdout, noProject)
	}
	writeBoard(c.stdout, b)
	for _, f := range b.Faults {
		fmt.Fprintf(c.stderr, "%s, line %d: %s\n", f.Path, f.Line, f.Text)
	}
	return nil
}

const noProject = "No project is found: a project is a note with \"type: project\" in its frontmatter, and task lists below its headings."

func writeBoard(w io.Writer, b progress.Board) {
	project := ""
	for _, r := range b.Rows {
		if r.Project != project {
			project = r.Project
			done, total := b.Count(r.Path)
			fmt.Fprintf(w, "%s  %d of %d\n", project, done, total)
		}
		state := string(r.State)
		for _, h := range r.After {
			if !h.Done && r.State == progress.Waiting {
				state = "waits for " + h.Phase
				if h.Crosses {
					state += " of " + h.Project
				}
				break
			}
		}
		if r.Phase.Gate != "" {
			state += "; gate: " + r.Phase.Gate
		}
		fmt.Fprintf(w, "  %s  %2d/%-2d  %s  (%s)\n", gauge(r.Done, r.Total), r.Done, r.Total, r.Phase.Name, state)
	}
}

// progressTool has a model read where projects stand, and what is open in them.
func (a *app) progressTool() toolbox.Tool {
	type arguments struct {
		Project string `json:"project,omitempty" jsonschema:"part of a project's title, to have its open tasks as well; all projects if left out"`
	}
	t := toolbox.Tool{Name: "progress", Outside: true, Policy: toolbox.Allow, Description: "Tells where the person's projects stand: phases, what is done, what waits for what."}
	return toolbox.Make(t, func(ctx context.Context, _ toolbox.Call, in arguments) (toolbox.Result, error) {
		board, err := a.projects().Board(ctx)
		if err != nil {
			return toolbox.Result{}, err
		}
		board, hidden := a.sayable(board)
		if in.Project != "" {
			board = board.Only(strings.ToLower(in.Project))
		}
		var text strings.Builder
		if hidden > 0 {
			fmt.Fprintf(&text, "%d of the projects are never sent to models, and left out.\n\n", hidden)
		}
		if len(board.Rows) == 0 {
			text.WriteString(noProject)
		}
		writeBoard(&text, board)
		for _, r := range board.Rows {
			for _, x := range r.Phase.Tasks {
				if in.Project != "" && !x.Done && !x.Dropped {
					fmt.Fprintf(&text, "%s, line %d, %s: - [ ] %s\n", r.Path, x.Line, r.Phase.Name, x.Text)
				}
			}
		}
		return toolbox.Result{Text: text.String()}, nil
	})
}

// sayable is a board without the notes that are never sent, and how many projects those are. What waits for one of them says no more than that.
func (a *app) sayable(b progress.Board) (out progress.Board, hidden int) {
	never := func(path string) bool { return a.library.NeverSent(library.Notes, path) }
	out, left := progress.Board{Ticks: b.Ticks}, map[string]bool{}
	for _, r := range b.Rows {
		if never(r.Path) {
			left[r.Path] = true
			continue
		}
		r.After = slices.Clone(r.After)
		for i := range r.After {
			if h := &r.After[i]; never(b.Rows[h.Row].Path) {
				h.Phase, h.Project = "a phase", "a project that is never sent"
			}
			r.After[i].Row = -1 // places in b
		}
		out.Rows = append(out.Rows, r)
	}
	return out, len(left)
}

// gauge is a bar of 16 places.
func gauge(done, total int) string {
	const places = 16
	full := 0
	if total > 0 {
		full = done * places / total
	}
	return strings.Repeat("█", full) + strings.Repeat("░", places-full)
}
