package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/precheck"
	"home.arpa/lab/homelab-iac/internal/seal"
	"home.arpa/lab/homelab-iac/internal/site"
)

var stateCommands = []command{
	{
		name: "state export", args: "FILE [flags]", summary: "write a sealed copy of Terraform's state",
		help: `Reads the state from GitLab and writes it into FILE, encrypted with the key that the configuration names (terraform.key). The service terraform-state
of the catalog does this with each backup: while GitLab is down its state cannot be read there. Where terraform.state is not set, FILE says
that nothing is kept.

Example:
  homelab state export prod.tfstate.sealed

Exit codes: 0 done, 1 failed: no file was written, 2 wrong usage.`,
		setup: func(_ *flag.FlagSet, c *call) func(context.Context) error { return c.stateExport },
	},
	{
		name: "state open", args: "FILE --key FILE", summary: "print what state export sealed",
		help: `Prints the state in the clear, secrets and all: for terraform state push on the day when GitLab's is lost.

Example:
  homelab state open prod.tfstate.sealed --key kit/state.key > prod.tfstate

Exit codes: 0 done, 1 it cannot be opened, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			key := fs.String("key", "", "the `FILE` with the key: state.key of the break-glass kit")
			return func(context.Context) error { return c.stateOpen(*key) }
		},
	},
}

// notKept is what a copy says where there is no state.
const notKept = "no state of Terraform is kept: terraform.state is not set in homelab.yaml\n"

func (c *call) stateExport(ctx context.Context) error {
	if len(c.args) != 1 {
		return usageError{"name the file to write"}
	}
	config, err := site.Load(c.config)
	if err != nil {
		return usageError{err.Error()}
	}
	text := []byte(notKept)
	if config.Terraform.State == "" {
		c.say("no state is kept: terraform.state is not set")
	} else if text, err = sealedState(ctx, config.Terraform); err != nil {
		return err
	}
	return backup.WriteFile(c.args[0], text, 0o600)
}

func sealedState(ctx context.Context, t site.Terraform) ([]byte, error) {
	key, err := site.Secret(t.Key)
	if err != nil {
		return nil, err
	}
	plain, err := fetchState(ctx, t)
	if err != nil {
		return nil, err
	}
	return seal.Seal(key, plain)
}

func fetchState(ctx context.Context, t site.Terraform) ([]byte, error) {
	token, err := site.Secret(t.Token)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return precheck.FetchState(ctx, t.State, t.User, token)
}

func (c *call) stateOpen(keyFile string) error {
	if len(c.args) != 1 || keyFile == "" {
		return usageError{"name the file, and its key with --key"}
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	sealed, err := os.ReadFile(c.args[0])
	if err != nil {
		return fmt.Errorf("read copy: %w", err)
	}
	if string(sealed) == notKept {
		return errors.New("open copy: " + notKept[:len(notKept)-1])
	}
	plain, err := seal.Open(string(key), sealed)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(plain)
	return err
}
