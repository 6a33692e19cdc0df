package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/s3"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/internal/versions"
)

var versionsCommands = []command{
	{
		name: "backup versions", args: "fast|slow [flags]", summary: "what of a repository was written over or deleted; put it back", json: true,
		help: `With the backup key an intruder can delete nothing, but write over objects; with the maintenance key he can delete. The bucket keeps the
older versions. This lists every object of the repository that is not what it was, and with --put-back writes the right version on top.
Which one that is, the object's name says: restic calls its files by their SHA-256, and each is checked before it is put back. Nothing is
removed: what stands there now stays as an older version, too. A second run finds nothing left to do and goes on where a first was
interrupted.

Without --before it looks for what was written over, whenever that was: restic writes no object twice. With --before it also brings back
what was deleted since, and names the snapshots that came after that moment: forged ones are among these, for restic forget.

It needs a key that may list and read versions (s3:ListBucketVersions, s3:GetObjectVersion), and write for --put-back: the maintenance
key, or the administrator's in a file of NAME=value lines (--key). Stop the backups meanwhile. Afterwards: homelab backup check.

Examples:
  homelab backup versions fast
  homelab backup versions fast --before 2026-01-30T12:00:00Z --key /root/admin.env
  homelab backup versions fast --before 2026-01-30T12:00:00Z --put-back

Exit codes: 0 nothing is wrong, or everything is back; 1 something is lost or could not be put back; 2 wrong usage; 4 declined.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var v versionsCall
			fs.StringVar(&v.before, "before", "", "the `TIME` at which all was well: 2026-01-30 (its end) or 2026-01-30T12:00:00Z")
			fs.StringVar(&v.key, "key", "", "a `FILE` with another key than the maintenance key")
			fs.BoolVar(&v.put, "put-back", false, "put it back")
			fs.BoolVar(&v.yes, "yes", false, "do not ask")
			return func(ctx context.Context) error { return c.versions(ctx, v) }
		},
	},
}

type versionsCall struct {
	before, key string
	put, yes    bool
}

func (c *call) versions(ctx context.Context, v versionsCall) error {
	folder, err := c.folder(v.key)
	if err != nil {
		return err
	}
	before, err := wanted{asOf: v.before}.time()
	if err != nil {
		return usageError{strings.Replace(err.Error(), "--as-of", "--before", 1)}
	}
	if before.After(time.Now()) {
		return usageError{fmt.Sprintf("--before %s is yet to come: name a moment when all was well", v.before)}
	}
	c.say("reading the list of versions")
	list, err := folder.Versions(ctx)
	if err != nil {
		return err
	}
	state := versions.Look(list, before)
	result := versions.Result{State: state, Lost: []string{}}
	if v.put && len(state.Losses) > 0 {
		if err := c.confirmPutBack(state, v.yes); err != nil {
			return err
		}
		result = versions.PutBack(ctx, folder, state, c.say)
	}
	if c.json {
		err = c.printJSON(result)
	} else {
		c.printVersions(result, v.put)
	}
	if err == nil && (len(result.Lost) > 0 || !v.put && len(state.Losses) > 0) {
		err = exitError(exitFailed)
	}
	return err
}

// folder opens the repository of the one argument, with the maintenance key or the one in a file.
func (c *call) folder(key string) (s3.Folder, error) {
	if key == "" {
		m, repo, _, err := c.tierRepo("maintenance")
		if m == nil {
			return s3.Folder{}, err
		}
		if err != nil {
			return s3.Folder{}, fmt.Errorf("%w; or name another key with --key", err)
		}
		return s3.Open(repo.URL, repo.Env)
	}
	m, err := c.machine()
	if err != nil {
		return s3.Folder{}, err
	}
	if len(c.args) != 1 || m.Repositories[c.args[0]].URL == "" {
		return s3.Folder{}, usageError{"name the tier of a repository: fast or slow"}
	}
	env, err := site.Key{File: key}.Environ()
	if err != nil {
		return s3.Folder{}, err
	}
	return s3.Open(m.Repositories[c.args[0]].URL, env)
}

func (c *call) confirmPutBack(s versions.State, yes bool) error {
	if yes {
		return nil
	}
	fmt.Fprintf(c.stderr, "%d objects are not what they were. Put the right version of each on top? What stands there stays as an older version. [y/N] ", len(s.Losses))
	line, err := bufio.NewReader(c.stdin).ReadString('\n')
	if err != nil && line == "" {
		return usageError{"there is nobody to ask: say --yes"}
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		c.print("Nothing was changed.\n")
		return exitError(exitRefused)
	}
	return nil
}

// shownLosses is how many objects are named; --json has all.
const shownLosses = 20

func (c *call) printVersions(r versions.Result, put bool) {
	for i, l := range r.Losses {
		if i == shownLosses {
			c.print("  and %d more; --json names all\n", len(r.Losses)-i)
			break
		}
		c.print("  %s %s %s\n", l.Key, l.Why, l.When.UTC().Format(time.RFC3339))
	}
	for _, lost := range r.Lost {
		c.print("  NOT back: %s\n", lost)
	}
	switch {
	case len(r.Losses) == 0:
		c.print("All %d objects are what they were.\n", r.Objects)
	case put:
		c.print("%d of %d objects are back (%s). Now: homelab backup check\n", r.Back, len(r.Losses), backup.Size(r.Bytes))
	default:
		c.print("%d of %d objects are not what they were; --put-back puts them back.\n", len(r.Losses), r.Objects)
	}
	if len(r.Newer) > 0 {
		c.print("%d snapshots came after that moment. Forged ones are among these: look (restic snapshots), then restic forget ID.\n", len(r.Newer))
	}
}
