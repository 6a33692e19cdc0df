package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/pass"
	"home.arpa/lab/homelab-iac/internal/plan"
)

var planCommands = []command{
	{
		name: "plan-check", args: "FILE [flags]", summary: "refuse a Terraform plan that loses something", json: true,
		help: `Reads in FILE what terraform show -json printed (- is the standard input) and refuses what destroys, installs a machine again in place, ends a
contract, keeps something for a shorter time, turns a protection off or lets more people in, also where the plan says no more than update. A
token of homelab precheck lets pass what it was made for: the machine that it names, and the addresses that were typed. Nothing covers the
loss of a bucket or of the GitLab project. No value of the plan is printed.

Examples:
  terraform show -json plan.bin | homelab plan-check -
  homelab plan-check plan.json --token token.txt --trusted trusted.keys
  homelab plan-check plan.json --json

Exit codes: 0 nothing is lost, or the token covers it; 2 wrong usage; 4 refused, also where the plan or the token cannot be read.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var p planCall
			fs.StringVar(&p.token, "token", "", "a `FILE` with a token; else it is taken from HOMELAB_TOKEN")
			fs.StringVar(&p.trusted, "trusted", "", "a `FILE` with the machines' keys: NAME KEY a line")
			fs.StringVar(&p.expendable, "expendable", "module.dev_learning", "`MODULES` whose machines may be wiped at will, by commas")
			return func(context.Context) error { return c.planCheck(p) }
		},
	},
}

type planCall struct{ token, trusted, expendable string }

// A verdict is what plan-check prints as JSON.
type verdict struct {
	Verdict  string         `json:"verdict"` // passes or refused
	Reason   string         `json:"reason,omitempty"`
	Plan     string         `json:"plan,omitempty"` // the SHA-256 of the file
	Counts   map[string]int `json:"counts,omitempty"`
	Findings []ruled        `json:"findings"`
	Token    *pass.Pass     `json:"token,omitempty"`
}

type ruled struct {
	plan.Finding
	Covered bool `json:"covered"`
}

func (c *call) planCheck(p planCall) error {
	if len(c.args) != 1 {
		return usageError{"name one file, made with terraform show -json, or - for the standard input"}
	}
	v := c.judgePlan(p)
	if c.json {
		if err := c.printJSON(v); err != nil {
			return err
		}
	} else {
		v.print(c.stdout)
	}
	if v.Verdict != "passes" {
		return exitError(exitRefused)
	}
	return nil
}

func (c *call) judgePlan(p planCall) verdict {
	v := verdict{Verdict: "refused", Findings: []ruled{}}
	read, err := c.readPlan(c.args[0])
	if err != nil {
		v.Reason = err.Error()
		return v
	}
	v.Plan, v.Counts = read.Digest, read.Counts()
	delete(v.Counts, plan.Same)
	var expendable []string
	for m := range strings.SplitSeq(p.expendable, ",") {
		if m = strings.TrimSpace(m); m != "" {
			expendable = append(expendable, m)
		}
	}
	found := plan.Judge(read, plan.Options{Expendable: expendable})
	if len(found) > 0 {
		if v.Token, err = readToken(p, read); err != nil {
			v.Reason = err.Error()
		}
	}
	open := 0
	for _, f := range found {
		covered := v.Token != nil && v.Token.Covers(f)
		if !covered {
			open++
		}
		v.Findings = append(v.Findings, ruled{f, covered})
	}
	switch {
	case v.Reason != "":
	case open > 0:
		v.Reason = fmt.Sprintf("%d of %d findings have no signature", open, len(found))
	default:
		v.Verdict = "passes"
	}
	return v
}

func (c *call) readPlan(file string) (plan.Plan, error) {
	if file == "-" {
		return plan.Read(c.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return plan.Plan{}, fmt.Errorf("read plan: %w", err)
	}
	defer f.Close()
	return plan.Read(f)
}

// readToken reads the token, where there is one. One that does not count is an error even where it would not cover anything.
func readToken(p planCall, of plan.Plan) (*pass.Pass, error) {
	token := os.Getenv("HOMELAB_TOKEN")
	if p.token != "" {
		text, err := os.ReadFile(p.token)
		if err != nil {
			return nil, fmt.Errorf("read token: %w: homelab precheck gives one out", err)
		}
		token = string(text)
	}
	if strings.TrimSpace(token) == "" {
		return nil, nil
	}
	if p.trusted == "" {
		return nil, fmt.Errorf("read token: name the file of trusted keys with --trusted")
	}
	text, err := os.ReadFile(p.trusted)
	if err != nil {
		return nil, fmt.Errorf("read trusted keys: %w", err)
	}
	keys, err := pass.Trusted(string(text))
	if err != nil {
		return nil, err
	}
	clock := pass.ReadClock()
	if made, err := time.Parse(time.RFC3339, of.Made); err == nil {
		clock.Least = made
	}
	got, err := pass.Read(token, keys, clock)
	if err != nil {
		return nil, err
	}
	return &got, nil
}

func (v verdict) print(w io.Writer) {
	for _, f := range v.Findings {
		mark := "REFUSED"
		if f.Covered {
			mark = "signed "
		}
		fmt.Fprintf(w, "%s  %s: %s\n         %s\n         -> %s\n", mark, f.Rule, f.Address, f.What, f.Cure)
		switch {
		case f.Covered:
		case f.Cover == plan.ByHost:
			fmt.Fprintf(w, "         signed by: homelab precheck on %s\n", f.Host)
		case f.Cover == plan.ByAddress:
			fmt.Fprintf(w, "         signed by: homelab precheck --address %q\n", f.Address)
		default:
			fmt.Fprint(w, "         no token covers this\n")
		}
	}
	if v.Verdict == "passes" {
		line := "The plan passes: what it does can be undone by the next one."
		if len(v.Findings) > 0 {
			line = fmt.Sprintf("The plan passes: every finding is signed for, by %s, until %s.", v.Token.Host, v.Token.Expires.Format(time.RFC3339))
		}
		fmt.Fprintln(w, line)
		return
	}
	fmt.Fprintf(w, "The plan is refused: %s.\n", strings.TrimSuffix(v.Reason, "."))
}
