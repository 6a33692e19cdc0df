package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restore"
)

// restoreTree asks what is missing and brings it back: the decision tree of docs/restore.md.
func (c *call) restoreTree(ctx context.Context) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	in := bufio.NewReader(c.stdin)
	c.stdin = in // the questions that follow read on
	switch answer, err := c.ask(in, "What is missing?\n  1  a note or a single file\n  2  a service or its data\n  3  a whole machine, or the hardware\n[1/2/3] "); {
	case err != nil:
		return err
	case answer == "1":
		return c.treeFile(ctx, m, in)
	case answer == "2":
		return c.treeService(ctx, m, in)
	case answer == "3":
		return c.treeMachine(ctx, m, in)
	default:
		return usageError{fmt.Sprintf("%q is none of 1, 2 and 3", answer)}
	}
}

func (c *call) ask(in *bufio.Reader, question string) (string, error) {
	fmt.Fprint(c.stderr, question)
	line, err := in.ReadString('\n')
	if err != nil && line == "" {
		return "", usageError{"there is nobody to ask: use homelab restore run, file or plan"}
	}
	return strings.TrimSpace(line), nil
}

func (c *call) treeFile(ctx context.Context, m *machine, in *bufio.Reader) error {
	file, err := c.ask(in, "Which file or folder? Its whole path: ")
	if err != nil {
		return err
	}
	asOf, err := c.ask(in, "As it was when? A day like 2026-01-30, or nothing for the newest: ")
	if err != nil {
		return err
	}
	w := wanted{asOf: asOf}
	found, err := m.lookFor(ctx, w, file)
	if err != nil {
		return err
	}
	rate, _ := m.rate()
	took := time.Duration(float64(found.bytes)/rate)*time.Second + 10*time.Second // to find it, and to read the repository's index
	answer, err := c.ask(in, fmt.Sprintf("It is in the %s repository as of %s: %d entries, %s. It takes about %s, about $%.2f for reading, and replaces nothing. Begin? [y/N] ",
		found.from.Tier, found.from.Snapshot.Time.Local().Format("2006-01-02 15:04"), found.entries, backup.Size(found.bytes), took.Round(10*time.Second),
		float64(found.bytes)/1e9*m.Repositories[found.from.Tier].Price))
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		fmt.Fprintln(c.stdout, "Nothing was changed.")
		return exitError(exitRefused)
	}
	return c.bringFile(ctx, m, w, file)
}

// A found is what a snapshot has of one file or folder.
type found struct {
	from    restore.Source
	entries int
	bytes   int64
}

// lookFor finds a file or folder in the newest snapshot that w allows, and what there is of it.
func (m *machine) lookFor(ctx context.Context, w wanted, file string) (f found, err error) {
	if file, err = filepath.Abs(file); err != nil {
		return f, err
	}
	s, ok := restore.Owning(m.catalog, file)
	if !ok {
		return f, usageError{fmt.Sprintf("%s is in no service's backup; homelab catalog shows what is", file)}
	}
	asOf, err := w.time()
	if err != nil {
		return f, err
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	if f.from, err = restore.Find(ctx, s, w.tier, asOf, m.Dumps, m.restoreRepo); err != nil {
		return f, err
	}
	repo, err := m.restoreRepo(f.from.Tier)
	if err != nil {
		return f, err
	}
	nodes, err := repo.List(ctx, f.from.Snapshot.ID, file)
	if err != nil {
		return f, err
	}
	for _, n := range nodes {
		if n.Path == file || strings.HasPrefix(n.Path, file+"/") {
			f.entries++
			f.bytes += n.Size
		}
	}
	if f.entries == 0 {
		return f, fmt.Errorf("%s was not in the snapshot of %s: name another time", file, f.from.Snapshot.Time.Local().Format("2006-01-02 15:04"))
	}
	return f, nil
}

func (c *call) treeService(ctx context.Context, m *machine, in *bufio.Reader) error {
	fmt.Fprintln(c.stderr, "These are backed up:")
	for _, s := range m.catalog {
		if s.Nothing == "" {
			fmt.Fprintf(c.stderr, "  %-12s on %-14s %s\n", s.Name, s.Host, s.About)
		}
	}
	tags, err := c.ask(in, "Which? Names with commas, or dbs for all databases: ")
	if err != nil {
		return err
	}
	asOf, err := c.ask(in, "As it was when? A day like 2026-01-30, or nothing for the newest: ")
	if err != nil {
		return err
	}
	return c.treeRun(ctx, m, in, wanted{tags: tags, asOf: asOf})
}

func (c *call) treeRun(ctx context.Context, m *machine, in *bufio.Reader, w wanted) error {
	plans, err := m.plans(ctx, w)
	if err != nil {
		return err
	}
	for _, p := range plans {
		fmt.Fprintf(c.stderr, "  %-12s as of %s, %d files, %s\n", p.Service, p.Made.Local().Format("2006-01-02 15:04"), p.Files, backup.Size(p.Bytes))
	}
	answer, err := c.ask(in, "It takes "+m.estimate(plans)+". Everything is fetched and verified first. Begin? [y/N] ")
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		fmt.Fprintln(c.stdout, "Nothing was changed.")
		return exitError(exitRefused)
	}
	return c.restoreRun(ctx, w)
}

// treeMachine brings a whole machine back: from a checkout it is made anew first, else it is the one that this runs on.
func (c *call) treeMachine(ctx context.Context, m *machine, in *bufio.Reader) error {
	host, err := c.ask(in, fmt.Sprintf("Which machine? One of %s, or nothing for this one (%s): ", strings.Join(hosts(m.catalog), ", "), m.Host))
	if err != nil {
		return err
	}
	if host == "" {
		host = m.Host
	}
	if !slices.Contains(hosts(m.catalog), host) {
		return usageError{fmt.Sprintf("the catalog knows no machine %q; there are %s", host, strings.Join(hosts(m.catalog), ", "))}
	}
	back := m.on(host)
	if playbooks := findPlaybooks(); playbooks != "" {
		return c.treeRebuild(ctx, back, in, playbooks)
	}
	fmt.Fprintf(c.stderr, `First the machine itself, from where the repository is checked out (this program does it when it is started there):
  terraform -chdir=homelab-iac/terraform apply     # where it is rented
  cd homelab-iac/ansible && ansible-playbook -i inventory/YOURS site.yml --limit %s
`, host)
	if host != m.Host {
		fmt.Fprintf(c.stdout, "Then, on %s: homelab restore.\n", host)
		return nil
	}
	answer, err := c.ask(in, "Has the playbook run on this machine? [y/N] ")
	if err != nil {
		return err
	}
	if answer != "y" && answer != "yes" {
		fmt.Fprintln(c.stdout, "Run it, then come back.")
		return exitError(exitRefused)
	}
	if len(catalogOf(back)) == 0 {
		fmt.Fprintln(c.stdout, "Nothing is backed up of this machine: now that the playbook has run it is whole.")
		return nil
	}
	return c.treeRun(ctx, back, in, wanted{tags: "all"})
}

// treeRebuild makes a machine anew from here, by the tools that made it: terraform apply, site.yml, restore.yml. Each is asked for.
func (c *call) treeRebuild(ctx context.Context, m *machine, in *bufio.Reader, playbooks string) error {
	var plans []restore.Plan
	if len(catalogOf(m)) > 0 {
		var err error
		if plans, err = m.plans(ctx, wanted{tags: "all"}); err != nil {
			return err
		}
	}
	for _, p := range plans {
		fmt.Fprintf(c.stderr, "  %-12s as of %s, %d files, %s\n", p.Service, p.Made.Local().Format("2006-01-02 15:04"), p.Files, backup.Size(p.Bytes))
	}
	fmt.Fprintf(c.stderr, "A new machine takes about 10 minutes to be rented and made, and its data %s.\n", m.estimate(plans))
	inventory, err := c.ask(in, "Your inventory? A folder or file, for example "+filepath.Join(playbooks, "inventory", "example")+": ")
	if err != nil {
		return err
	}
	if _, err := os.Stat(inventory); err != nil {
		return usageError{fmt.Sprintf("read inventory: %v", err)}
	}
	if inventory, err = filepath.Abs(inventory); err != nil {
		return err
	}
	limit := restore.Quote(m.Host)
	steps := []struct{ what, line string }{
		{"Rent it anew", "terraform -chdir=" + restore.Quote(filepath.Join(playbooks, "..", "terraform")) + " apply"},
		{"Make it", c.playLine(playbooks, inventory) + " site.yml --limit " + limit},
		{"Bring its data back", c.playLine(playbooks, inventory) + " restore.yml --limit " + limit + " -e restore_confirmed=true"},
	}
	if len(plans) == 0 {
		steps = steps[:2]
		fmt.Fprintln(c.stderr, "Nothing is backed up of this machine: when it is made it is whole.")
	}
	for _, s := range steps {
		answer, err := c.ask(in, fmt.Sprintf("%s?\n  $ %s\n[y: run it / s: it is done already / N: stop] ", s.what, s.line))
		if err != nil {
			return err
		}
		switch answer {
		case "y", "yes":
			if err := c.interactive(ctx, s.line); err != nil {
				return fmt.Errorf("%s: %w", s.line, err)
			}
		case "s":
		default:
			fmt.Fprintln(c.stdout, "Stopped there. Start again and say s to what is done.")
			return exitError(exitRefused)
		}
	}
	fmt.Fprintf(c.stdout, "%s is back. Now look yourself: read something, compare, open the programs. The restore wrote its note on %s.\n", m.Host, m.Host)
	return nil
}

// interactive runs a command line that may ask the person something itself.
func (c *call) interactive(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, 12*time.Hour)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.stderr, c.stderr
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

// playLine begins a call of ansible-playbook as a person types it.
func (c *call) playLine(playbooks, inventory string) string {
	return "cd " + restore.Quote(playbooks) + " && PATH=$(./setup.sh):$PATH ansible-playbook -i " + restore.Quote(inventory)
}

// hosts are the machines of a catalog.
func hosts(all []catalog.Service) (names []string) {
	for _, s := range all {
		names = append(names, s.Host)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// on is the same configuration as another machine reads it.
func (m *machine) on(host string) *machine {
	other := *m
	other.Host = host
	return &other
}

// catalogOf are the services of a machine that have something to restore.
func catalogOf(m *machine) []catalog.Service {
	return slices.DeleteFunc(slices.Clone(m.catalog), func(s catalog.Service) bool { return s.Host != m.Host || s.Nothing != "" })
}
