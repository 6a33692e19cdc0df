package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A contestant is one way from the client to the upstream.
type contestant struct {
	name    string
	address string   // host:port
	path    string   // of chat completions
	header  []string // what it needs to be told beside the usual
	process *process // nil: there is nothing in between
	version string
}

// An entrant knows how to start a contestant before an upstream. An error means that it does not take part.
type entrant struct {
	name  string
	start func(ctx context.Context, b *bench, address string) (*contestant, error)
}

// The order is that of the table.
var entrants = []entrant{
	{"direct", startDirect},
	{"reverseproxy", startProxy},
	{"llm-runner", startRunner},
	{"portkey", startPortkey},
	{"litellm", startLiteLLM},
}

func names() (all []string) {
	for _, e := range entrants {
		all = append(all, e.name)
	}
	return all
}

const chatPath = "/v1/chat/completions"

func startDirect(_ context.Context, b *bench, _ string) (*contestant, error) {
	return &contestant{address: b.upstream}, nil
}

func startProxy(_ context.Context, b *bench, address string) (*contestant, error) {
	p, err := b.launchSelf("reverseproxy", "proxy", address, "http://"+b.upstream)
	return &contestant{process: p, version: goVersion()}, err
}

// startRunner starts llm-runner as it is installed: with its ledger on disk, its routing, its health checks.
func startRunner(ctx context.Context, b *bench, address string) (*contestant, error) {
	binary, err := b.runnerBinary(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(b.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`providers:
  fake: {kind: openai, url: "http://%s/v1"}
routes:
  default: {provider: fake, model: %s}
  models:
    %s: {provider: fake, model: %s}
`, b.upstream, model, model, model)
	file := filepath.Join(b.dir, "runner.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := launch(b.dir, "llm-runner", nil, binary, "serve", "--config", file, "--data", data, "--listen", address)
	return &contestant{process: p, version: runnerVersion(ctx, binary)}, err
}

// loopbackOnly keeps Portkey's gateway, which listens on every interface, on this machine.
//
//go:embed loopback.cjs
var loopbackOnly []byte

func startPortkey(ctx context.Context, b *bench, address string) (*contestant, error) {
	dir, err := installPortkey(ctx)
	if err != nil {
		return nil, err
	}
	preload := filepath.Join(b.dir, "loopback.cjs")
	if err := os.WriteFile(preload, loopbackOnly, 0o600); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	p, err := launch(b.dir, "portkey", []string{"NODE_ENV=production"}, "node", "--require", preload,
		filepath.Join(dir, "node_modules/@portkey-ai/gateway/build/start-server.js"), "--port="+port, "--headless")
	return &contestant{process: p, version: portkeyVersion + ", Node " + nodeVersion(ctx),
		header: []string{"x-portkey-provider: openai", "x-portkey-custom-host: http://" + b.upstream + "/v1"}}, err
}

func startLiteLLM(ctx context.Context, b *bench, address string) (*contestant, error) {
	dir, err := installLiteLLM(ctx)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("model_list:\n  - model_name: %s\n    litellm_params: {model: openai/%s, api_base: \"http://%s/v1\", api_key: none}\n",
		model, model, b.upstream)
	file := filepath.Join(b.dir, "litellm.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	env := []string{
		"LITELLM_LOCAL_MODEL_COST_MAP=True",                        // nothing from the net
		"PYTHONDONTWRITEBYTECODE=1",                                // nothing into the cache
		"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true", // on loopback, like the others
	}
	p, err := launch(b.dir, "litellm", env, filepath.Join(dir, "bin/litellm"),
		"--config", file, "--host", host, "--port", port, "--num_workers", "1", "--telemetry", "False")
	return &contestant{process: p, version: litellmVersion}, err
}

// enter starts an entrant and waits until it gives one right answer of each kind.
func (b *bench) enter(ctx context.Context, e entrant) (*contestant, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c, err := e.start(ctx, b, address)
	if err != nil {
		return nil, err
	}
	c.name, c.path = e.name, chatPath
	if c.address == "" {
		c.address = address
	}
	if c.process != nil {
		b.processes = append(b.processes, c.process)
	}
	ready := func() error {
		for _, stream := range []bool{false, true} {
			client := newClient(c, stream)
			_, _, err := client.ask()
			client.close()
			if err != nil {
				return err
			}
		}
		return nil
	}
	for deadline := time.Now().Add(90 * time.Second); ; {
		err := ready()
		if err == nil {
			return c, nil
		}
		var exited chan struct{} // nil: never
		said := func() string { return "" }
		if c.process != nil {
			exited, said = c.process.exited, c.process.complaint
		}
		select {
		case <-exited:
			return nil, fmt.Errorf("it ended at once: %s", said())
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("it gives no right answer: %w\n%s", err, said())
		}
	}
}

// chosen says whether an entrant takes part, given the names of -only; none means all. What the others are compared with
// always does.
func chosen(name string, only []string) bool {
	return len(only) == 0 || name == "direct" || slices.Contains(only, name)
}
