package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"home.arpa/lab/homelab-iac/internal/infisical"
	"home.arpa/lab/homelab-iac/internal/secrets"
	"home.arpa/lab/homelab-iac/services"
	"home.arpa/lab/internal/strict"
)

var secretsCommands = []command{{
	name: "secrets pull", args: "--project ID --into FOLDER [flags] | --project ID --check [flags]", summary: "write the variables of a machine's services into files that only root reads", json: true,
	help: `Reads the folder /NAME of Infisical for each service of the catalog that runs on --host and writes NAME.env, mode 0600, into --into. Everything is
read and checked first: when a variable is missing that a compose file insists on, all that is missing is told and nothing is written. Each file
is replaced in one step, and left alone when it says the same. Values are never printed.

The machine identity comes from the environment: INFISICAL_UNIVERSAL_AUTH_CLIENT_ID and INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET.

Examples:
  homelab secrets pull --host prod-services --project 7f9c... --into /etc/homelab
  homelab secrets pull --host contabo --project 7f9c... --into /etc/homelab --set TAILNET_ADDRESS=100.64.0.7 --json
  homelab secrets pull --host contabo --project 7f9c... --check     # is everything there? writes nothing

Exit codes: 0 done; 1 Infisical did not answer or a file could not be written; 2 the command line is wrong; 4 something is missing, and nothing was written.`,
	setup: func(fl *flag.FlagSet, c *call) func(context.Context) error {
		host := fl.String("host", "", "the `MACHINE` whose services are meant; empty: this machine's name")
		into := fl.String("into", "", "the `FOLDER` for the files, which others must not enter")
		check := fl.Bool("check", false, "read and check, write nothing")
		from := fl.String("services", "", "the catalog's `FOLDER`; empty: the one in this program")
		without := fl.String("without", "", "`NAMES` of services that do not run there although the catalog says so, separated by commas")
		client := &infisical.Client{}
		fl.StringVar(&client.URL, "url", "https://app.infisical.com", "`URL` of the server")
		fl.StringVar(&client.Project, "project", "", "the project's `ID`")
		fl.StringVar(&client.Environment, "environment", "prod", "the environment's `SLUG`")
		set := map[string]string{}
		fl.Func("set", "`NAME=VALUE` for every service, for what is no secret; may be repeated, and secrets come before it", func(v string) error {
			name, value, ok := strings.Cut(v, "=")
			if !ok {
				return errors.New("write NAME=VALUE")
			}
			set[name] = value
			return nil
		})
		return func(ctx context.Context) error {
			client.ID, client.Secret = os.Getenv("INFISICAL_UNIVERSAL_AUTH_CLIENT_ID"), os.Getenv("INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET")
			if (*into == "") != *check {
				return usageError{"name a folder with --into, or say --check"}
			}
			if err := client.Check(); err != nil {
				return usageError{err.Error() + "\nThe first two come from INFISICAL_UNIVERSAL_AUTH_CLIENT_ID and INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET, the others from --project and --environment."}
			}
			if *host == "" {
				var err error
				if *host, err = os.Hostname(); err != nil {
					return err
				}
			}
			var tree fs.FS = services.FS
			if *from != "" {
				tree = os.DirFS(*from)
			}
			return c.pullSecrets(ctx, client, secrets.Request{Catalog: tree, Host: *host, Without: strings.Split(*without, ","), Set: set}, *into)
		}
	},
}}

func (c *call) pullSecrets(ctx context.Context, client *infisical.Client, r secrets.Request, into string) error {
	if err := client.Login(ctx); err != nil {
		return err
	}
	texts, results, err := secrets.Gather(ctx, r, client.Secrets)
	var faults strict.Faults
	if errors.As(err, &faults) {
		fmt.Fprintf(c.stderr, "homelab secrets pull: nothing was written:\n%v\n", err)
		return exitError(exitRefused)
	}
	if err != nil {
		return err
	}
	if into != "" {
		if err := secrets.Write(into, texts, results); err != nil {
			return err
		}
	}
	if c.json {
		return c.printJSON(map[string]any{"host": r.Host, "services": results})
	}
	for _, got := range results {
		state := "is the same"
		switch {
		case into == "":
			state = "is complete"
		case got.Changed:
			state = "written"
		}
		fmt.Fprintf(c.stdout, "%-12s %-12s %s\n", got.Service, state, strings.Join(got.Variables, " "))
	}
	return nil
}
