// Command homelab backs the machines of a homelab up, watches that the backups are there, and brings everything back.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/deploy"
	"home.arpa/lab/homelab-iac/internal/site"
)

// The exit codes of every command.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // the command line or the configuration is wrong
	exitPartial     = 3   // every service has a snapshot, and some lack something: a failure
	exitRefused     = 4   // something looks forged, or a person said no: nothing was changed
	exitBusy        = 75  // another backup is at work on this machine
	exitInterrupted = 130 // Ctrl-C
)

// A command is one subcommand; its name may have two words.
type command struct {
	name    string
	args    string
	summary string
	help    string
	json    bool // whether it can print JSON
	setup   func(fs *flag.FlagSet, c *call) func(ctx context.Context) error
}

// commands in the order in which help lists them. Filled by init, since help refers to it.
var commands []command

func init() {
	commands = slices.Concat(backupCommands, versionsCommands, watchCommands, restoreCommands, proveCommands, drillCommands, catalogCommands, pinCommands, planCommands,
		precheckCommands, stateCommands, secretsCommands, terraformCommands, imageCommands, deployCommands, aliveCommands, catalogPageCommands, fakeCommands)
}

// A call is one invocation.
type call struct {
	config         string
	json           bool
	stdin          io.Reader
	stdout, stderr io.Writer
	args           []string
	patience       patience
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: it picks the command, runs it and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 1 && args[0] == "help" { // never what comes behind it: somebody wants to read first
		args = append(slices.Clone(args[1:]), "--help")
	}
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		overview(stdout)
		return exitOK
	}
	for words := min(2, len(args)); words > 0; words-- {
		for _, cmd := range commands {
			if cmd.name == strings.Join(args[:words], " ") {
				c := &call{stdin: stdin, stdout: stdout, stderr: stderr, patience: patienceOf(ctx)}
				return exitCode(ctx, stderr, cmd.name, cmd.invoke(ctx, c, args[words:]))
			}
		}
	}
	if list := below(args[0]); len(list) > 0 {
		fmt.Fprintf(stderr, "homelab: there is no command %q; there are %s\n", strings.TrimSuffix(strings.Join(args[:min(2, len(args))], " "), " --help"), strings.Join(list, ", "))
		return exitUsage
	}
	fmt.Fprintf(stderr, "homelab: there is no command %q; run homelab help\n", strings.Join(args[:min(2, len(args))], " "))
	return exitUsage
}

// below are the commands of two words that begin with this one.
func below(word string) (list []string) {
	for _, cmd := range commands {
		if strings.HasPrefix(cmd.name, word+" ") {
			list = append(list, cmd.name)
		}
	}
	return list
}

func overview(w io.Writer) {
	fmt.Fprint(w, "homelab backs machines up, watches that the backups are there, and brings everything back.\n\nUsage: homelab COMMAND [flags]\n\n")
	for _, cmd := range commands {
		fmt.Fprintf(w, "  %-20s %s\n", cmd.name, cmd.summary)
	}
	fmt.Fprint(w, "\nhomelab COMMAND --help shows flags and examples. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,\n"+
		"3 partial, 4 refused, 75 another backup is at work, 130 interrupted.\n")
}

type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// exitError is an exit code whose reason has been printed already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// flags are the command's own and those that every command has, and what runs it once they are parsed.
func (cmd command) flags(c *call) (*flag.FlagSet, func(context.Context) error) {
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	config := site.Path
	if from, ok := os.LookupEnv("HOMELAB_CONFIG"); ok { // how a restore's own steps find it
		config = from
	}
	fs.StringVar(&c.config, "config", config, "configuration `FILE` of this machine")
	if cmd.json { // else the flag is unknown: who asks for JSON must not be handed text
		fs.BoolVar(&c.json, "json", false, "print JSON")
	}
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
		if !cmd.words() {
			return cmd.stray(args[0])
		}
		c.args, args = append(c.args, args[0]), args[1:]
	}
}

// words tells whether the command takes words beside its flags, as its usage says.
func (cmd command) words() bool {
	return cmd.args != "" && !strings.HasPrefix(cmd.args, "-") && !strings.HasPrefix(cmd.args, "[flags]")
}

// stray is the error for a word that would otherwise be passed over in silence.
func (cmd command) stray(word string) error {
	if list := below(cmd.name); len(list) > 0 {
		return usageError{fmt.Sprintf("there is no %q: there are %s", cmd.name+" "+word, strings.Join(list, ", "))}
	}
	if strings.Contains(cmd.args, "--tags") {
		return usageError{fmt.Sprintf("%q stands alone: write --tags %s, or what it is the value of", word, word)}
	}
	return usageError{fmt.Sprintf("%q stands alone: this command takes flags only", word)}
}

func (cmd command) usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: homelab %s %s\n\n%s\n\nFlags:\n", cmd.name, cmd.args, strings.TrimSpace(cmd.help))
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  --%-22s %s\n", strings.TrimSpace(f.Name+" "+value), text)
	})
}

// exitCode reports err once, on stderr, and turns it into the exit code.
func exitCode(ctx context.Context, stderr io.Writer, name string, err error) int {
	var silent exitError
	var usage usageError
	var refusal *backup.Refusal
	var unfit *deploy.Refusal
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return int(silent)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "homelab %s: %v\nRun homelab %s --help for usage.\n", name, err, name)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "interrupted:", err)
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "homelab %s: %v\n", name, err)
	switch {
	case errors.As(err, &refusal), errors.As(err, &unfit):
		return exitRefused
	case errors.Is(err, backup.ErrBusy):
		return exitBusy
	}
	return exitFailed
}

func (c *call) printJSON(v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// print writes a part of the answer.
func (c *call) print(format string, args ...any) { fmt.Fprintf(c.stdout, format, args...) }

// say prints what happens, one line each, on stderr: stdout is for the answer.
func (c *call) say(text string) { fmt.Fprintln(c.stderr, text) }
