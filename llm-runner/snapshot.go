package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"text/tabwriter"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

var snapshotCommand = command{
	name: "snapshot", args: "FILE [flags]", summary: "copy the database into one file, also while a server runs",
	help: `Writes everything that the runner keeps, as it is at one moment, into FILE. A running server goes on meanwhile. The file is
checked from its first byte to its last before it gets its name; after an error nothing of it is left. It holds your
conversations: mode 0600, so keep it where only you can read it. The configuration and your notes are files of your own and not in it.

Examples:
  llm-runner snapshot /backup/runner-$(date +%F).db
  llm-runner snapshot /backup/runner.db --force --json
  llm-runner restore /backup/runner.db

Exit codes: 0 the snapshot is there, 1 failed, 2 the command line or the configuration is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		force := fs.Bool("force", false, "overwrite FILE where it is there already")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			path, err := c.oneFile("write the snapshot to")
			if err != nil {
				return err
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			if config.Database != "" {
				return elsewhereError("snapshot", `pg_dump --format=custom --file=`+path+` "$DATABASE_URL"`)
			}
			d, err := readDB(ctx, config)
			if err != nil {
				return err
			}
			if d == nil {
				return fmt.Errorf("there is no database in %s, so there is nothing to copy: name the runner's data directory with --data", config.Data)
			}
			defer d.Close()
			info, err := d.Snapshot(ctx, path, db.SnapshotOptions{Overwrite: *force, Progress: c.progress(time.Now())})
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(info)
			}
			return c.printSnapshot(info)
		}
	},
}

// oneFile returns the one argument, made absolute.
func (c *call) oneFile(purpose string) (string, error) {
	switch {
	case len(c.args) != 1 || c.args[0] == "":
		return "", usageError{"name one file to " + purpose}
	case c.args[0] == "-":
		return "", usageError{`"-" cannot be used: name a file to ` + purpose}
	}
	return filepath.Abs(c.args[0])
}

// progress tells on stderr how far a copy is, once it has taken a second.
func (c *call) progress(start time.Time) func(done, estimate int64) {
	return func(done, estimate int64) {
		if time.Since(start) >= time.Second {
			fmt.Fprintf(c.stderr, "%s of about %s written\n", bytesText(done), bytesText(estimate))
		}
	}
}

func (c *call) printSnapshot(info db.Info) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "file\t%s\nsize\t%s\nschema\t%d\nsha256\t%s\n", info.Path, bytesText(info.Bytes), info.Schema, info.SHA256)
	for _, t := range info.Tables {
		fmt.Fprintf(w, "%s\t%d rows\n", t.Name, t.Rows)
	}
	return w.Flush()
}

// bytesText writes a size for people: 512 bytes, 3.4 MB.
func bytesText(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
