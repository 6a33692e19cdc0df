// Command verifyctl asks machines whether they are what site.yml says, without Ansible: over SSH, with their own tools.
//
//	verifyctl --groups docker,nginx,services,restic [--ssh-config FILE] [--json] HOST...
//
// It prints a line for each assertion and changes nothing. Exit codes: 0 all are true; 1 some are not, or a machine does not answer; 2
// the command line is wrong.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/test/verify"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("verifyctl", flag.ContinueOnError)
	flags.SetOutput(stderr)
	groups := flags.String("groups", "", "the inventory's `GROUPS` that the machines are in: docker,nginx,services,restic")
	config := flags.String("ssh-config", "", "a `FILE` for ssh -F")
	asJSON := flags.Bool("json", false, "print JSON")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "verifyctl: name a machine: verifyctl --groups docker,restic root@prod-services")
		return 2
	}
	all, err := verify.All()
	if err != nil {
		fmt.Fprintln(stderr, "verifyctl:", err)
		return 2
	}
	wanted := strings.FieldsFunc(*groups, func(r rune) bool { return r == ',' })
	for _, g := range wanted {
		if known := verify.Groups(all); !slices.Contains(known, g) {
			fmt.Fprintf(stderr, "verifyctl: --groups %s: nothing is said about %q; there are %s\n", *groups, g, strings.Join(known, ", "))
			return 2
		}
	}
	told, wrong := map[string][]verify.Result{}, 0
	for _, host := range flags.Args() {
		results := verify.Ask(ctx, verify.Of(all, wanted), over(host, *config))
		told[host] = results
		for _, r := range results {
			if !r.OK {
				wrong++
			}
			if !*asJSON {
				printLine(stdout, host, r)
			}
		}
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(told); err != nil {
			fmt.Fprintln(stderr, "verifyctl:", err)
			return 1
		}
	} else if wrong > 0 {
		fmt.Fprintf(stdout, "%d things are not as they should be: run site.yml, and look again\n", wrong)
	}
	if wrong > 0 {
		return 1
	}
	return 0
}

func printLine(w io.Writer, host string, r verify.Result) {
	if r.OK {
		fmt.Fprintf(w, "ok      %s: %s\n", host, r.What)
		return
	}
	fmt.Fprintf(w, "WRONG   %s: %s: got %q, want %q\n", host, r.What, r.Got, r.Want)
}

// over runs commands on a machine by ssh, each within a minute.
func over(host, config string) func(context.Context, string) (string, error) {
	args := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
	if config != "" {
		args = append([]string{"-F", config}, args...)
	}
	return func(ctx context.Context, command string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "ssh", append(args, "--", host, command)...).Output()
		return string(out), err
	}
}
