package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

var fakeCommand = command{
	name: "fake", args: "openai|groq|gemini|anthropic|ollama|discord|ntfy|webhook|qdrant|otlp [flags]", summary: "imitate a provider's API, faults included, for tests",
	help: `Serves a provider's HTTP API as it is documented: paths, headers, rate limits with their real resets, error bodies, stream
framing. A script (docs/fakes.md) says what is answered, which limits hold and which faults are injected; without one every
question is echoed. GET /_fake/requests shows what was asked. discord imitates its webhook, ntfy a server of ntfy,
webhook a receiver of signed posts; GET /_fake/messages shows what was posted.
qdrant imitates the store of vectors, otlp a receiver of traces (GET /_fake/spans shows them); they take key and faults of a script.

Examples:
  llm-runner fake groq --listen 127.0.0.1:9001
  llm-runner fake gemini --listen 127.0.0.1:9002 --script storm.yaml
  llm-runner fake discord --listen 127.0.0.1:9003
  GROQ_API_KEY=any GROQ_BASE_URL=http://127.0.0.1:9001/openai/v1 llm-runner ask hello

Exit codes: 0 after Ctrl-C, 1 the address is taken, 2 wrong usage or a faulty script.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		listen := fs.String("listen", "127.0.0.1:0", "`ADDR` to listen on; port 0 chooses a free one")
		path := fs.String("script", "", "`FILE` that says what is answered and what goes wrong")
		return func(ctx context.Context) error {
			kinds := append(fake.Kinds(), "discord", "ntfy", "webhook", "qdrant", "otlp")
			if len(c.args) != 1 || !slices.Contains(kinds, c.args[0]) {
				return usageError{"name one of " + strings.Join(kinds, ", ")}
			}
			var s script.Script
			if *path != "" {
				var err error
				if s, err = script.Load(*path); err != nil {
					return usageError{err.Error()}
				}
			}
			handler, err := imitation(c.args[0], s)
			if err != nil {
				return usageError{err.Error()}
			}
			l, err := net.Listen("tcp", *listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "fake %s on http://%s\n", c.args[0], l.Addr())
			return serveUntil(ctx, l, &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}, time.Second)
		}
	},
}

func imitation(kind string, s script.Script) (http.Handler, error) {
	switch kind {
	case "discord":
		return fake.NewDiscord(s)
	case "ntfy":
		return fake.NewNtfy(s)
	case "webhook":
		return fake.NewWebhook(s)
	case "qdrant":
		return fake.NewQdrant(s)
	case "otlp":
		return fake.NewOTLP(s)
	}
	return fake.New(kind, s)
}

// serveUntil serves until ctx ends, then gives running requests some time to finish.
func serveUntil(ctx context.Context, l net.Listener, srv *http.Server, patience time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Shutdown(stopping); err != nil {
		srv.Close() //nolint:errcheck // what did not finish in time is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
