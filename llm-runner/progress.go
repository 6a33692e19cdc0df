package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"

	"home.arpa/lab/llm-runner/internal/progress"
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
			board, err := readBoard(ctx, config)
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

// readBoard asks the server, where one runs, and reads the notes itself where none does.
func readBoard(ctx context.Context, config *Config) (board progress.Board, err error) {
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
	return a.projects().Board(ctx)
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
		fmt.Fprintln(c.stdout, "No project is found: a project is a note with \"type: project\" in its frontmatter, and task lists below its headings.")
	}
	project := ""
	for _, r := range b.Rows {
		if r.Project != project {
			project = r.Project
			done, total := b.Count(r.Path)
			fmt.Fprintf(c.stdout, "%s  %d of %d\n", project, done, total)
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
		fmt.Fprintf(c.stdout, "  %s  %2d/%-2d  %s  (%s)\n", gauge(r.Done, r.Total), r.Done, r.Total, r.Phase.Name, state)
	}
	for _, f := range b.Faults {
		fmt.Fprintf(c.stderr, "%s, line %d: %s\n", f.Path, f.Line, f.Text)
	}
	return nil
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
