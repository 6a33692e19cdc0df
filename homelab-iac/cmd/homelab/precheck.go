package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/pass"
	"home.arpa/lab/homelab-iac/internal/precheck"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/internal/discord"
)

var precheckCommands = []command{
	{
		name: "precheck", args: "[flags]", summary: "twelve sign-offs, then a token to wipe this machine", json: true,
		help: `Looks at twelve things, each with its evidence, its age and its cure: fresh backups, checks, the last drill, the vault's snapshot with the kit's
key, dumps and their manifests, Gitea's refs, files picked at random, Infisical's export, Terraform's state, a second way in, the monitors and
a test alert. Where all are signed, a person types the name of the machine; then a token is printed that lets plan-check pass what wipes this
machine, and wiping playbooks begin, for an hour. Nothing is changed but that Discord gets one message.

Examples:
  homelab precheck --kit /mnt/kit
  homelab precheck --kit /mnt/kit --address 'module.bucket["fast"].aws_s3_bucket_versioning.this'
  homelab precheck --look --json

Exit codes: 0 a token was given (with --look: all are signed), 1 something is not signed, 2 the configuration is wrong, 4 another name was
typed: no token.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var p precheckCall
			fs.StringVar(&p.kit, "kit", "", "the `FOLDER` of the break-glass kit; else precheck.kit")
			fs.Func("address", "an `ADDRESS` of a plan that the token covers, too; may be given again", func(s string) error {
				p.addresses = append(p.addresses, s)
				return nil
			})
			fs.BoolVar(&p.look, "look", false, "only look: nobody is asked, and there is no token")
			return func(ctx context.Context) error { return c.precheck(ctx, p) }
		},
	},
	{
		name: "precheck verify", args: "[flags]", summary: "say whether a token lets this machine be wiped", json: true,
		help: `For playbooks that wipe: reads a token (HOMELAB_TOKEN, or --token FILE; - is the standard input), and wants it signed by this machine's own key, for
this machine, not an hour old by any clock, and the snapshots that it names still in the repositories.

Examples:
  homelab precheck verify --token token.txt
  echo "$TOKEN" | homelab precheck verify --token -

Exit codes: 0 it does, 2 the configuration is wrong, 4 it does not.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			file := fs.String("token", "", "a `FILE` with the token")
			return func(ctx context.Context) error { return c.precheckVerify(ctx, *file) }
		},
	},
	{
		name: "precheck key", args: "[flags]", summary: "print the key that this machine signs with",
		help: `Prints the line for the file of trusted keys that plan-check reads with --trusted. The key is made at the first call.

Example:
  homelab precheck key >>trusted.keys

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		setup: func(_ *flag.FlagSet, c *call) func(context.Context) error {
			return func(context.Context) error {
				m, err := c.machine()
				if err != nil {
					return err
				}
				key, err := pass.Key(m.signingKey())
				if err == nil {
					fmt.Fprintln(c.stdout, pass.Line(m.Host, key))
				}
				return err
			}
		},
	},
}

type precheckCall struct {
	kit       string
	addresses []string
	look      bool
}

func (m *machine) signingKey() string { return filepath.Join(m.State, "precheck.key") }

func (c *call) precheck(ctx context.Context, p precheckCall) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	if p.kit == "" {
		p.kit = m.Precheck.Kit
	}
	if !slices.ContainsFunc(m.catalog, func(s catalog.Service) bool { return s.Host == m.Host }) {
		return usageError{fmt.Sprintf("the catalog has no service on %s: correct host in the configuration", m.Host)}
	}
	where, err := c.precheckSite(ctx, m, p.kit)
	if err != nil {
		return err
	}
	report := precheck.Look(ctx, where)
	missing := report.Missing()
	if !c.json {
		printSignOffs(c.stdout, report)
	}
	result := error(nil)
	switch {
	case len(missing) > 0:
		result = exitError(exitFailed)
	case p.look:
	case len(report.Snapshots) == 0:
		result = c.refuse("there is no snapshot that " + m.Host + " would be restored from")
	default:
		report.Token, result = c.sign(m, report, p.addresses)
	}
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else if report.Token != "" {
		fmt.Fprintf(c.stdout, "\nThe token counts for an hour:\n\n%s\n", report.Token)
	}
	return result
}

// refuse says why there is no token, or why one does not count.
func (c *call) refuse(why string) error {
	c.say("refused: " + why)
	return exitError(exitRefused)
}

// sign asks a person for the name of the machine, and makes the token.
func (c *call) sign(m *machine, report precheck.Report, addresses []string) (string, error) {
	for _, a := range addresses {
		c.say("it will also cover " + a)
	}
	fmt.Fprintf(c.stderr, "All twelve are signed. Type the name of the machine that may be wiped (this is %s): ", m.Host)
	line, err := bufio.NewReader(io.LimitReader(c.stdin, 4096)).ReadString('\n')
	typed := strings.TrimSpace(line)
	switch {
	case err != nil && typed == "":
		return "", c.refuse("nobody typed the name of the machine")
	case typed != m.Host:
		return "", c.refuse(fmt.Sprintf("%.60q was typed, and this is %s", typed, m.Host))
	}
	key, err := pass.Key(m.signingKey())
	if err != nil {
		return "", err
	}
	return pass.Sign(pass.Pass{Host: m.Host, Snapshots: report.Snapshots, Addresses: addresses}, key, pass.ReadClock())
}

// precheckSite says how everything is reached. What is not configured is nil: the look that needs it says so.
func (c *call) precheckSite(ctx context.Context, m *machine, kit string) (precheck.Site, error) {
	s := precheck.Site{Host: m.Host, Catalog: m.catalog, Dumps: m.Dumps, States: m.states(ctx), Checks: map[string]time.Time{}, Kit: kit, Files: m.Precheck.Files,
		Ways: m.Precheck.Ways, Now: time.Now, Say: c.say, Repo: m.restoreRepo}
	for _, t := range catalog.Tiers {
		s.Checks[t.Name] = backup.LastCheck(m.State, t.Name).At
	}
	if text, err := os.ReadFile(filepath.Join(m.State, "restore-report.json")); err == nil {
		if err := json.Unmarshal(text, &s.Proof); err != nil {
			s.Proof = precheck.Proof{}
		}
	}
	s.KitRepo = func(tier string) (restic.Repo, error) { return m.kitRepo(kit, tier) }
	if i := m.Precheck.Infisical; i.URL != "" {
		s.Secrets = func(ctx context.Context) (map[string]string, error) {
			id, err := site.Secret(i.Client)
			if err != nil {
				return nil, err
			}
			secret, err := site.Secret(i.Secret)
			if err != nil {
				return nil, err
			}
			return precheck.FetchSecrets(ctx, i, id, secret)
		}
	}
	if m.Terraform.State != "" {
		s.State = func(ctx context.Context) ([]byte, error) { return fetchState(ctx, m.Terraform) }
	}
	if m.Kuma.URL != "" {
		s.Push = func(ctx context.Context) error {
			return m.push(ctx, catalog.HostMonitor(m.Host), true, "precheck looks", 0)
		}
	}
	hook, err := site.Secret(m.Discord)
	if err != nil {
		return s, usageError{err.Error()}
	}
	if hook != "" {
		s.Tell = discord.New(hook).Deliver
	}
	return s, nil
}

// kitRepo opens a repository with the password and the key that lie in the kit, and with nothing else.
func (m *machine) kitRepo(kit, tier string) (restic.Repo, error) {
	r, ok := m.Repositories[tier]
	if !ok {
		return restic.Repo{}, fmt.Errorf("open the %s repository: the configuration has none", tier)
	}
	env, err := site.Key{File: filepath.Join(kit, tier+".env")}.Environ()
	if err != nil {
		return restic.Repo{}, err
	}
	password := filepath.Join(kit, tier+".password")
	if _, err := os.Stat(password); err != nil {
		return restic.Repo{}, fmt.Errorf("read the kit: %w", err)
	}
	return restic.Repo{Binary: m.Restic, URL: r.URL, PasswordFile: password, Env: env, Cache: filepath.Join(m.Cache, "kit-"+tier)}, nil
}

func printSignOffs(w io.Writer, r precheck.Report) {
	for _, s := range r.SignOffs {
		mark := "signed "
		if !s.Signed {
			mark = "MISSING"
		}
		fmt.Fprintf(w, "%s %2d  %s\n            %s (%s ago, %s)\n", mark, s.Number, s.Name, s.Evidence, s.Age, s.At.Format(time.RFC3339))
		if s.Cure != "" {
			fmt.Fprintf(w, "            -> %s\n", s.Cure)
		}
	}
	if n := len(r.Missing()); n > 0 {
		fmt.Fprintf(w, "%d of %d are missing: %s must not be wiped.\n", n, precheck.Count, r.Host)
	}
}

func (c *call) precheckVerify(ctx context.Context, file string) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	token := os.Getenv("HOMELAB_TOKEN")
	switch {
	case file == "-":
		text, err := io.ReadAll(io.LimitReader(c.stdin, 64<<10))
		if err != nil {
			return err
		}
		token = string(text)
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read token: %w: homelab precheck gives one out", err)
		}
		token = string(text)
	}
	key, err := pass.Key(m.signingKey())
	if err != nil {
		return err
	}
	own, err := pass.Trusted(pass.Line(m.Host, key))
	if err != nil {
		return err
	}
	p, err := pass.Read(token, own, pass.ReadClock())
	if err == nil {
		err = m.stillThere(ctx, p.Snapshots)
	}
	if err != nil {
		return c.refuse(err.Error())
	}
	if c.json {
		return c.printJSON(p)
	}
	fmt.Fprintf(c.stdout, "%s may be wiped until %s; %d snapshots are there.\n", p.Host, p.Expires.Format(time.RFC3339), len(p.Snapshots))
	return nil
}

// stillThere looks for the snapshots that a token names: an hour is long enough to lose one.
func (m *machine) stillThere(ctx context.Context, ids []string) error {
	var all error
	have := map[string]bool{}
	for tier := range m.Repositories {
		list, err := m.snapshots(ctx, tier)
		all = errors.Join(all, err)
		for _, s := range list {
			have[s.ID] = true
		}
	}
	for _, id := range ids {
		if !have[id] {
			return errors.Join(fmt.Errorf("snapshot %.8s, which the token names, is in no repository: run homelab precheck again", id), all)
		}
	}
	return nil
}
