package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/deploy"
)

var deployCommands = []command{{
	name: "deploy", args: "SERVICE [NAME@DIGEST] [flags] | --ssh", summary: "start another version of a service here, and go back if it is not healthy", json: true,
	help: `Pulls the image by its digest, moves the local tag that compose.yaml names, starts the service, and asks the addresses that the catalog says must answer
after a restore. If they do not answer three times in a row within --wait, what ran before is started again. Only the image that the catalog names for
the service is taken. Without arguments beside the service it tells what was deployed last.

With --ssh the words come from SSH_ORIGINAL_COMMAND, and nothing but a deployment can be asked for: for a line in authorized_keys like
  restrict,command="homelab deploy --ssh" ssh-ed25519 AAAA... pipeline

Examples:
  homelab deploy llm-runner registry.gitlab.com/example/homelab/llm-runner@sha256:...
  homelab deploy llm-runner

Exit codes: 0 the new version is healthy, 1 it is not (the last line says what runs now), 2 the command line is wrong, 4 refused, nothing was touched.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		wait := fs.Duration("wait", 2*time.Minute, "how long it has to become healthy")
		health := fs.String("health", "", "`URLS` to ask instead of the catalog's, with commas")
		ssh := fs.Bool("ssh", false, "take the words from SSH_ORIGINAL_COMMAND")
		return func(ctx context.Context) error {
			if *ssh {
				words := strings.Fields(os.Getenv("SSH_ORIGINAL_COMMAND"))
				if len(words) != 4 || words[0] != "homelab" || words[1] != "deploy" || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") }) {
					return usageError{"this key may only ask for homelab deploy SERVICE NAME@DIGEST"}
				}
				c.args = words[2:]
			}
			return c.deploy(ctx, *wait, *health)
		}
	},
}}

func (c *call) deploy(ctx context.Context, wait time.Duration, health string) error {
	if len(c.args) != 1 && len(c.args) != 2 {
		return usageError{"name the service, and the image with its digest"}
	}
	m, err := c.machine()
	if err != nil {
		return err
	}
	t, err := m.target(c.args[0])
	if err != nil {
		return err
	}
	t.Wait, t.Say = wait, c.say
	if health != "" {
		t.Health = strings.Split(health, ",")
	}
	if len(c.args) == 1 {
		last := t.Last()
		if c.json {
			return c.printJSON(last)
		}
		if last.Wanted == "" {
			fmt.Fprintf(c.stdout, "Nothing was deployed as %s yet.\n", t.Service)
			return nil
		}
		fmt.Fprintf(c.stdout, "%s: %s, %s\n%s\n", t.Service, last.State, last.At.Local().Format("2006-01-02 15:04"), last.Wanted)
		return nil
	}
	result, err := t.Run(ctx, c.args[1])
	var refusal *deploy.Refusal
	if errors.As(err, &refusal) {
		return err
	}
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if told := m.note(ctx, map[string]string{"deployment of " + t.Service: trouble}); told != nil {
		c.say(told.Error())
	}
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(result)
	}
	fmt.Fprintf(c.stdout, "%s runs %s and is healthy.\n", t.Service, result.Wanted)
	return nil
}

// target is a service of this machine as deploy sees it: the container that is called like it, or its only one.
func (m *machine) target(name string) (deploy.Target, error) {
	i := slices.IndexFunc(m.catalog, func(s catalog.Service) bool { return s.Name == name })
	if i < 0 {
		return deploy.Target{}, usageError{fmt.Sprintf("the catalog has no service %q", name)}
	}
	s := m.catalog[i]
	k := slices.IndexFunc(s.Compose.Containers, func(c catalog.Container) bool { return c.Name == name })
	if k < 0 || s.Host != m.Host {
		return deploy.Target{}, usageError{fmt.Sprintf("%s has no container of its own name on %s", name, m.Host)}
	}
	t := deploy.Target{Service: name, Container: name, Image: s.Compose.Containers[k].Image, Docker: m.Compose[:1], State: m.State,
		Compose: s.Expand([]string{"{compose}"}, m.Compose, "")}
	if at := slices.Index(m.Compose, "compose"); at > 0 {
		t.Docker = m.Compose[:at] // what stands before it is how Docker is called
	}
	for _, h := range s.Restore.Holds {
		if h.HTTP != "" && h.Status == 0 {
			t.Health = append(t.Health, h.HTTP)
		}
	}
	if len(t.Health) == 0 {
		return t, usageError{fmt.Sprintf("the catalog names no address of %s that must answer: add restore.holds with http, or say --health", name)}
	}
	return t, nil
}
