package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"home.arpa/lab/llm-runner/internal/db"
)

var restoreCommand = command{
	name: "restore", args: "FILE [flags]", summary: "put a snapshot in the place of the database",
	help: `Checks FILE and puts a copy of it in the place of the database; a snapshot of an older version is brought up to date. The
present database is kept beside it as runner.db.before-restore-TIME, which is yours to delete. No server may be running.
Whenever the process dies, the old database or the new one is in place, whole; after an error it is the old one.

Examples:
  llm-runner restore /backup/runner-2026-01-31.db
  llm-runner restore /backup/runner.db --yes --json
  llm-runner restore ~/.local/share/llm-runner/runner.db.before-restore-20260131T070000Z

Exit codes: 0 restored, 1 failed or declined, 2 the command line or the configuration is wrong, or nobody was there to ask.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		yes := fs.Bool("yes", false, "do not ask")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			file, err := c.oneFile("restore")
			if err != nil {
				return err
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			if config.Database != "" {
				return elsewhereError("restore", `pg_restore --clean --if-exists --single-transaction --dbname="$DATABASE_URL" `+file)
			}
			if !*yes && !terminal(c.stdin) {
				return errNobodyToAsk
			}
			o, err := own(config.Data)
			if err != nil {
				return err
			}
			defer o.release()
			path := filepath.Join(config.Data, db.Name)
			if !*yes {
				if err := c.confirm(ctx, fmt.Sprintf("Put %s in the place of %s? The present database is kept beside it. [y/N] ", file, path)); err != nil {
					return err
				}
			}
			done, err := db.Replace(ctx, path, file)
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(map[string]any{"database": path, "kept": done.Kept, "migrated": notNil(done.Applied), "snapshot": done.Info})
			}
			fmt.Fprintf(c.stdout, "%s is restored from %s (%s, schema %d).\n", path, file, bytesText(done.Bytes), done.Schema)
			if len(done.Applied) > 0 {
				fmt.Fprintf(c.stdout, "It was brought up to schema %d.\n", done.Applied[len(done.Applied)-1])
			}
			if done.Kept != "" {
				fmt.Fprintf(c.stdout, "The database that was there is %s.\n", done.Kept)
			}
			return nil
		}
	},
}

var errNobodyToAsk = usageError{"there is no terminal to ask on whether to replace the database: say --yes"}

// terminal says whether somebody may sit behind r: a character device that is not /dev/null.
func terminal(r any) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	if err != nil {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return st.Mode()&os.ModeCharDevice != 0 && (err != nil || !os.SameFile(st, null))
}

// confirm asks and returns nil for a yes.
func (c *call) confirm(ctx context.Context, question string) error {
	fmt.Fprint(c.stderr, question)
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(c.stdin).ReadString('\n') // "" at its end
		answered <- line
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case line := <-answered:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		if line == "" {
			return errNobodyToAsk
		}
		return errors.New("nothing was changed")
	}
}
