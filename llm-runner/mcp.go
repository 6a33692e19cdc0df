package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpserver"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpserver/fixture"
)

var mcpCommand = command{
	name: "mcp", args: "[flags]", summary: "offer the tools to another program over stdin and stdout (MCP)",
	help: `Speaks the Model Context Protocol on stdin and stdout, for programs that start their MCP servers themselves, such as editors and
desktop assistants: give them the command llm-runner with the argument mcp. Where llm-runner serves from the same data directory, that server does the work, with its policies and its log;
otherwise this process does. A tool that is asked about waits for your word on the server's Tools page; without a server nobody can
be asked, and such calls fail.

Programs that connect over HTTP use http://ADDR/mcp of the server instead, with a token of auth.tokens where there are any.

Examples:
  llm-runner mcp
  llm-runner mcp --vault ~/notes

Exit codes: 0 the client has left, 1 failed, 2 the configuration is wrong.`,
	setup: func(_ *flag.FlagSet, c *call) func(context.Context) error {
		return func(ctx context.Context) error {
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			transport := &mcp.IOTransport{Reader: io.NopCloser(c.stdin), Writer: unclosed{c.stdout}}
			if _, ok := running(config.Data); ok {
				return left(ctx, mcpserver.Relay(ctx, func() (mcpserver.Place, error) {
					bell, ok := running(config.Data)
					if !ok {
						return mcpserver.Place{}, errors.New("llm-runner serves no more: start it again")
					}
					return mcpserver.Place{Endpoint: bell.URL + "/mcp", Token: bell.Token}, nil
				}, version, transport))
			}
			log := slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			a, err := assemble(ctx, config, log, nil)
			if err != nil {
				return err
			}
			defer a.close()
			a.start(a.library.Run, a.servers.Run)
			s := mcpserver.New(mcpserver.Config{Box: a.box, Version: version, Wait: 1, Log: log})
			return left(ctx, s.Serve(ctx, transport))
		}
	},
}

// left is the end of a conversation over a pipe: that the other side has gone is how it ends.
func left(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || ctx.Err() != nil {
		return nil //nolint:nilerr // that is no error
	}
	return err
}

// unclosed keeps stdout open for whoever gave it to us.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

var mcpFixtureCommand = command{
	name: "mcp-fixture", args: "[URL] [flags]", summary: "serve what the public MCP conformance suite asks for, for tests",
	help: `Serves the tools, prompts and resources that the scenarios of @modelcontextprotocol/conformance call, at /mcp, through the same
transport, guard and door as the real server. With the URL of one of the suite's servers it plays a client instead: the scenario that
MCP_CONFORMANCE_SCENARIO names. It keeps nothing.

Examples:
  llm-runner mcp-fixture --listen 127.0.0.1:3001
  conformance server --url http://127.0.0.1:3001/mcp --suite active --spec-version 2025-11-25
  conformance client --command "llm-runner mcp-fixture" --suite all

Exit codes: 0 after Ctrl-C or a scenario, 1 the address is taken or the scenario failed, 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		listen := fs.String("listen", "127.0.0.1:0", "`ADDR` to listen on; port 0 chooses a free one")
		return func(ctx context.Context) error {
			switch len(c.args) {
			case 0:
			case 1:
				return fixture.Visit(ctx, c.args[0], os.Getenv("MCP_CONFORMANCE_SCENARIO"), os.Getenv("MCP_CONFORMANCE_CONTEXT"))
			default:
				return usageError{fmt.Sprintf("mcp-fixture takes one argument, but was also given %q", c.args[1])}
			}
			log := slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			gate, err := guard.New(guard.Config{Listen: *listen, Log: log})
			if err != nil {
				return usageError{err.Error()}
			}
			l, err := net.Listen("tcp", *listen)
			if err != nil {
				return err
			}
			mux := http.NewServeMux()
			s := fixture.New(ctx)
			mux.Handle("/mcp", gateway.MCP(mcpserver.Handlers(func() *mcp.Server { return s }, log)))
			fmt.Fprintf(c.stdout, "fixture on http://%s/mcp\n", l.Addr())
			return serveUntil(ctx, l, guard.Server(*listen, gate.Wrap(mux)), patience)
		}
	},
}
