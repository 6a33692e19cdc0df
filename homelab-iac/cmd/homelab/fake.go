package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"

	"home.arpa/lab/homelab-iac/internal/fake"
)

var fakeCommands = []command{{
	name: "fake", args: "gitlab|registry [flags]", summary: "imitate GitLab's API or a container registry, to try the pipelines without them",
	help: `gitlab serves what the pipelines use of GitLab: notes of merge request 1, Terraform states with locks, pipelines with artifacts, variables, and the rules of
its tokens. It has one project, number 1, and these tokens: fake-note (Reporter, api), fake-read (Developer, read_api), fake-maintainer (Maintainer,
api); the job tokens are fake-job-developer and fake-job-maintainer. GET /_fake/requests shows what was asked, without tokens. registry serves a container
registry that keeps everything in memory. Both listen on this machine only.

Examples:
  homelab fake gitlab --listen 127.0.0.1:9010
  curl -H 'PRIVATE-TOKEN: fake-note' http://127.0.0.1:9010/api/v4/projects/1/merge_requests/1/notes
  homelab fake registry --listen 127.0.0.1:9011

Exit codes: 0 after Ctrl-C, 1 failed, 2 the command line is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		listen := fs.String("listen", "127.0.0.1:9010", "`ADDR` to listen on")
		return func(ctx context.Context) error {
			if len(c.args) != 1 {
				return usageError{"name gitlab or registry"}
			}
			var handler http.Handler
			switch c.args[0] {
			case "gitlab":
				handler = exampleGitLab()
			case "registry":
				handler = fake.NewRegistry()
			default:
				return usageError{fmt.Sprintf("there is no fake %q: name gitlab or registry", c.args[0])}
			}
			return c.serveFake(ctx, *listen, handler)
		}
	},
}}

func exampleGitLab() *fake.GitLab {
	g := fake.NewGitLab(1, "example/homelab")
	g.OpenRequest(1)
	for _, t := range []fake.Token{
		{Value: "fake-note", User: "project_1_bot_note", Role: fake.Reporter, Scopes: []string{"api"}},
		{Value: "fake-read", User: "project_1_bot_read", Role: fake.Developer, Scopes: []string{"read_api"}},
		{Value: "fake-maintainer", User: "operator", Role: fake.Maintainer, Scopes: []string{"api"}},
		{Value: "fake-job-developer", User: "contributor", Role: fake.Developer, Job: true},
		{Value: "fake-job-maintainer", User: "operator", Role: fake.Maintainer, Job: true},
	} {
		g.Add(t)
	}
	return g
}

func (c *call) serveFake(ctx context.Context, listen string, handler http.Handler) error {
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return usageError{fmt.Sprintf("--listen %q is not an address of this machine only: say 127.0.0.1:9010", listen)}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintf(c.stdout, "listening on http://%s\n", l.Addr())
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it ends
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
