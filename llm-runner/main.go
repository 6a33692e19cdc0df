// Command llm-runner takes every piece of LLM work that one household has, decides which model on which machine answers
// it, streams the answer, cites the owner's own notes, and keeps the books.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"home.arpa/lab/llm-runner/internal/llm"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

// The exit codes of every command; docs/commands.md explains them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // the command line or the configuration is wrong
	exitHeld        = 3   // nobody can answer now; asking later helps
	exitRefused     = 4   // the provider refused for good: key, money or the request itself
	exitInterrupted = 130 // Ctrl-C
)

// A command is one subcommand. help is what --help prints below the usage line: sentences, flags, examples.
type command struct {
	name    string
	args    string // for the usage line
	summary string
	help    string
	// setup adds the command's own flags and returns what runs it once they are parsed.
	setup func(fs *flag.FlagSet, c *call) func(ctx context.Context) error
}

// commands in the order in which help lists them.
var commands = []command{serveCommand, workerCommand, askCommand, jobCommand, agentCommand, routeCommand, modelsCommand, usageCommand, progressCommand, libraryCommand, memoryCommand, evalCommand, doctorCommand, alertCommand, snapshotCommand, restoreCommand, mcpCommand, fakeCommand, mcpFixtureCommand, versionCommand}

// A call is one invocation of a command.
type call struct {
	Options
	stdin          io.Reader
	stdout, stderr io.Writer
	args           []string // what is left after the flags
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: it picks the command, runs it and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		if len(args) > 1 {
			return run(ctx, []string{args[1], "--help"}, stdin, stdout, stderr)
		}
		overview(stdout)
		if len(args) == 0 {
			return exitUsage
		}
		return exitOK
	}
	if args[0] == readDocumentCommand {
		return readDocument(ctx, args[1:], stdin, stdout, stderr)
	}
	if args[0] == readPageCommand {
		return readPage(ctx, stdin, stdout, stderr)
	}
	if args[0] == "--version" {
		args[0] = "version"
	}
	for _, cmd := range commands {
		if cmd.name == args[0] {
			c := &call{stdin: stdin, stdout: stdout, stderr: stderr}
			return exitCode(ctx, stderr, cmd.name, cmd.invoke(ctx, c, args[1:]))
		}
	}
	fmt.Fprintf(stderr, "llm-runner: there is no command %q; run llm-runner help\n", args[0])
	return exitUsage
}

func overview(w io.Writer) {
	fmt.Fprint(w, "llm-runner routes the LLM work of one household to the right model on the right machine.\n\nUsage: llm-runner COMMAND [flags]\n\n")
	for _, cmd := range commands {
		fmt.Fprintf(w, "  %-11s %s\n", cmd.name, cmd.summary)
	}
	fmt.Fprint(w, "\nllm-runner COMMAND --help shows flags and examples. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,\n"+
		"3 nobody can answer now, 4 refused for good, 130 interrupted.\n")
}

// usageError is a wrong command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// flags are the command's own and those that every command has, and what runs it once they are parsed.
func (cmd command) flags(c *call) (*flag.FlagSet, func(context.Context) error) {
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.Config, "config", "", "configuration `FILE` (default: runner.yaml in the data directory)")
	fs.StringVar(&c.Data, "data", "", "data `DIR` (default: $XDG_DATA_HOME/llm-runner or ~/.local/share/llm-runner)")
	fs.StringVar(&c.Vault, "vault", "", "`DIR` of Markdown notes (default: the handbook)")
	return fs, cmd.setup(fs, c)
}

// invoke parses the flags, which may stand before, between and after the arguments, and runs the command.
func (cmd command) invoke(ctx context.Context, c *call, args []string) error {
	fs, work := cmd.flags(c)
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			cmd.usage(c.stdout, fs)
			return nil
		}
		if err != nil {
			return usageError{strings.TrimPrefix(err.Error(), "flag: ")}
		}
		if args = fs.Args(); len(args) == 0 {
			return work(ctx)
		}
		if cmd.args == "[flags]" {
			return usageError{fmt.Sprintf("%s takes no argument, but was given %q", cmd.name, args[0])}
		}
		c.args, args = append(c.args, args[0]), args[1:]
	}
}

func (cmd command) usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: llm-runner %s %s\n\n%s\n\nFlags:\n", cmd.name, cmd.args, strings.TrimSpace(cmd.help))
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  --%-22s %s\n", strings.TrimSpace(f.Name+" "+value), text)
	})
}

// exitCode reports err once, on stderr, and turns it into the exit code.
func exitCode(ctx context.Context, stderr io.Writer, name string, err error) int {
	if err == nil {
		return exitOK
	}
	var silent exitError
	var usage usageError
	var config *ConfigError
	var busy *llm.BusyError
	var refused *llm.Error
	switch {
	case errors.As(err, &silent):
		return int(silent)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "llm-runner %s: %v\nRun llm-runner %s --help for usage.\n", name, err, name)
		return exitUsage
	case errors.As(err, &config):
		fmt.Fprintln(stderr, err)
		return exitUsage
	case ctx.Err() != nil || llm.KindOf(err) == llm.Cancelled:
		fmt.Fprintln(stderr, "interrupted")
		return exitInterrupted
	case errors.As(err, &busy):
		fmt.Fprintf(stderr, "Nobody can answer now: %v\n", err)
		return exitHeld
	case errors.As(err, &refused) && refused.Kind.Permanent():
		fmt.Fprintln(stderr, err)
		return exitRefused
	}
	fmt.Fprintf(stderr, "llm-runner %s: %v\n", name, err)
	return exitFailed
}

// exitError is an exit code whose reason has been printed already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
