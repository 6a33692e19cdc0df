package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/gitlab"
	"home.arpa/lab/homelab-iac/internal/pipeline"
	"home.arpa/lab/homelab-iac/internal/plan"
)

var terraformCommands = []command{
	{
		name: "terraform plan", args: "[flags]", summary: "plan, tell it without values, and seal the plan file (a job of a merge request)",
		help: `Plans without taking the state's lock, prints the summary, and leaves in --out: note.md for the merge request, report.json for GitLab's widget,
summary.txt, and plan.sealed, which only homelab terraform apply can open. Terraform itself sees the variables whose names begin with PLAN_, without
that prefix, and of the others a few (PATH, HOME, proxies, TF_VAR_*). What it prints is never shown: values stand in it.

Examples:
  homelab terraform plan --dir homelab-iac/terraform --out plan
  PLAN_AWS_ACCESS_KEY_ID=... homelab terraform plan --dir homelab-iac/terraform

Exit codes: 0 planned, 1 failed, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			w := planFlags(fs, "PLAN_")
			return func(ctx context.Context) error { return c.terraformPlan(ctx, w, false) }
		},
	},
	{
		name: "terraform drift", args: "[flags]", summary: "plan, and fail if there is anything to do (a nightly job)",
		help: `Plans as terraform plan does, and leaves nothing. That something is to be done on main says that somebody changed it by hand, or that an apply failed.
Where DISCORD_WEBHOOK is set, Discord hears once when that begins and once when it is over; --book keeps what was told.

Example:
  homelab terraform drift --dir homelab-iac/terraform --book .homelab/incidents.json

Exit codes: 0 nothing is to be done, 1 something is, or it failed, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			w := planFlags(fs, "PLAN_")
			return func(ctx context.Context) error { return c.terraformPlan(ctx, w, true) }
		},
	},
	{
		name: "terraform apply", args: "[flags]", summary: "apply what was read in the merge request, or nothing (a job on main)",
		help: `Fetches the sealed plan of this commit's merge request from GitLab (or takes --sealed), opens it with PLAN_PRIVATE_KEY, and compares the
configuration in it with the files here. If the state still has the number that it had, that very plan is applied; otherwise it is planned again under the
lock, and applied if it would do exactly the same. Anything else stops, tells what would be done, and how to let it pass: PLAN_ACCEPT. Plans that
can lose something stop unless homelab plan-check lets them pass. Terraform sees the variables whose names begin with APPLY_, without that prefix.

Examples:
  homelab terraform apply --dir homelab-iac/terraform
  homelab terraform apply --dir homelab-iac/terraform --sealed plan/plan.sealed

Exit codes: 0 applied or nothing to do, 1 failed, 2 the command line is wrong, 4 stopped, nothing was changed.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			w := planFlags(fs, "APPLY_")
			sealed := fs.String("sealed", "", "take this sealed plan `FILE` and ask GitLab for none")
			job := fs.String("job", "terraform:plan", "the `JOB` that left the plan")
			token := fs.String("token", "", "precheck token `FILE` for homelab plan-check; else it is taken from HOMELAB_TOKEN")
			trusted := fs.String("trusted", os.Getenv("HOMELAB_TRUSTED"), "`FILE` with the machines' keys (default: HOMELAB_TRUSTED)")
			return func(ctx context.Context) error { return c.terraformApply(ctx, w, *sealed, *job, *token, *trusted) }
		},
	},
	{
		name: "terraform key", args: "", summary: "make the pair of keys for sealed plans", json: true,
		help: `Prints two CI variables: PLAN_PUBLIC_KEY, for every pipeline, and PLAN_PRIVATE_KEY, masked, hidden and protected, for main's only. New plans need
nothing else; plans that were sealed with the old pair cannot be applied any more.

Examples:
  homelab terraform key
  homelab terraform key --json

Exit codes: 0 printed, 1 failed, 2 wrong usage.`,
		setup: func(_ *flag.FlagSet, c *call) func(context.Context) error {
			return func(context.Context) error {
				public, private, err := pipeline.NewKey()
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(map[string]string{"public": public, "private": private})
				}
				fmt.Fprintf(c.stdout, "PLAN_PUBLIC_KEY=%s\nPLAN_PRIVATE_KEY=%s\n", public, private)
				return nil
			}
		},
	},
	{
		name: "plan-note", args: "[FILE] [flags]", summary: "write a plan's summary into its merge request, as one note", json: true,
		help: `Writes FILE (note.md of homelab terraform plan), or with --plan what terraform show -json has printed, into a merge request. There is one note for
each --name; the next run writes it anew. It needs PLAN_NOTE_TOKEN: a project access token with the role Reporter and the scope api. A job's own token
may read notes and not write them. Project, merge request and address come from the job's variables, or from the flags.

Examples:
  homelab plan-note plan/note.md
  terraform show -json plan.out | homelab plan-note --plan - --project 7 --request 12 --api https://gitlab.com/api/v4
  homelab plan-note --plan plan.json --print

Exit codes: 0 written, 1 failed, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			w := &noting{planning: planFlags(fs, "PLAN_")}
			fs.StringVar(&w.json, "plan", "", "render this JSON `FILE` of terraform show; - is stdin")
			fs.StringVar(&w.api, "api", os.Getenv("CI_API_V4_URL"), "`URL` of the API")
			fs.StringVar(&w.project, "project", os.Getenv("CI_PROJECT_ID"), "`PROJECT`, number or path")
			fs.StringVar(&w.request, "request", os.Getenv("CI_MERGE_REQUEST_IID"), "number `N` of the merge request in its project")
			fs.BoolVar(&w.print, "print", false, "print the note, and ask GitLab nothing")
			return func(ctx context.Context) error { return c.planNote(ctx, w) }
		},
	},
}

// planning are the flags that plan and apply share.
type planning struct {
	prefix, dir, out, program, state, prices, book string
	expendable                                     string
	wait                                           time.Duration
}

func planFlags(fs *flag.FlagSet, prefix string) *planning {
	w := &planning{prefix: prefix}
	fs.StringVar(&w.dir, "dir", ".", "`DIR` of the root module")
	fs.StringVar(&w.out, "out", "", "`DIR` for the files that are left")
	fs.StringVar(&w.program, "program", os.Getenv("TERRAFORM"), "`PROGRAM` to run (default: TERRAFORM, or terraform, or tofu)")
	fs.StringVar(&w.state, "name", "prod", "`NAME` of the state, and of the note")
	fs.StringVar(&w.prices, "prices", os.Getenv("PLAN_PRICES"), "`FILE` with what things cost (default: PLAN_PRICES; without it no cost is told)")
	fs.StringVar(&w.expendable, "expendable", "module.dev_learning", "`MODULES` whose machines may be wiped at will, with commas")
	fs.StringVar(&w.book, "book", "", "`FILE` that keeps what Discord was told")
	fs.DurationVar(&w.wait, "lock-timeout", 5*time.Minute, "how long a lock is waited for")
	return w
}

func (w *planning) tool(c *call) (*pipeline.Tool, error) {
	if w.program == "" {
		w.program = "terraform"
		if _, err := exec.LookPath("terraform"); err != nil {
			if _, err := exec.LookPath("tofu"); err == nil {
				w.program = "tofu"
			}
		}
	}
	if found, err := filepath.Glob(filepath.Join(w.dir, "*.tf")); err != nil || len(found) == 0 {
		return nil, usageError{fmt.Sprintf("%s holds no *.tf: name the root module with --dir", w.dir)}
	}
	t := &pipeline.Tool{Program: w.program, Dir: w.dir, Log: c.stderr, Wait: w.wait}
	t.Env, t.Secrets = pipeline.Environment(os.Environ(), w.prefix, w.state)
	if stateIsRemote(w.dir) && !slices.ContainsFunc(t.Env, func(e string) bool { return strings.HasPrefix(e, "TF_HTTP_ADDRESS=") }) {
		return nil, usageError{fmt.Sprintf("the state of %s is behind an address, and none is set: a pipeline has CI_API_V4_URL and CI_PROJECT_ID; by hand set TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD", w.dir)}
	}
	return t, nil
}

var httpBackend = regexp.MustCompile(`(?m)^\s*backend\s+"http"`)

// stateIsRemote tells whether a root module keeps its state in GitLab, or behind another address.
func stateIsRemote(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*.tf"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && httpBackend.Match(text)
	})
}

func (w *planning) planning() (pipeline.Planning, error) {
	p := pipeline.Planning{Public: os.Getenv("PLAN_PUBLIC_KEY"), Out: w.out, Commit: os.Getenv("CI_COMMIT_SHA"), Pipeline: os.Getenv("CI_PIPELINE_URL"), State: w.state, Now: time.Now()}
	if w.expendable != "" {
		p.Options.Expendable = strings.Split(w.expendable, ",")
	}
	if p.Commit == "" {
		text, err := exec.Command("git", "-C", w.dir, "rev-parse", "HEAD").Output()
		if err != nil {
			return p, usageError{"there is no CI_COMMIT_SHA and no Git here: say which commit this is with CI_COMMIT_SHA"}
		}
		p.Commit = strings.TrimSpace(string(text))
	}
	if w.prices == "" {
		return p, nil
	}
	text, err := os.ReadFile(w.prices)
	if err != nil {
		return p, usageError{err.Error()}
	}
	p.Prices, err = plan.ReadPrices(text)
	return p, err
}

func (c *call) terraformPlan(ctx context.Context, w *planning, drift bool) error {
	t, err := w.tool(c)
	if err != nil {
		return err
	}
	p, err := w.planning()
	if err != nil {
		return err
	}
	if p.Out != "" && p.Public == "" && !drift {
		return usageError{"PLAN_PUBLIC_KEY is not set: make a pair with homelab terraform key, or leave --out away"}
	}
	s, err := t.Make(ctx, p)
	if !drift {
		if err != nil {
			return err
		}
		fmt.Fprint(c.stdout, s.Text())
		return nil
	}
	trouble := ""
	switch {
	case err != nil:
		trouble = "it cannot be planned: look at the job's log"
	case !s.Plan.Empty():
		trouble = s.Headline() + " Somebody changed it by hand, or an apply failed: look at the job's log"
		fmt.Fprint(c.stdout, s.Text())
	default:
		fmt.Fprintln(c.stdout, "Nothing changes.")
	}
	if told := c.tellBook(ctx, w.book, "what is rented ("+w.state+")", trouble); told != nil {
		c.say(told.Error())
	}
	if err == nil && trouble != "" {
		return exitError(exitFailed)
	}
	return err
}

func (c *call) terraformApply(ctx context.Context, w *planning, sealed, job, token, trusted string) error {
	t, err := w.tool(c)
	if err != nil {
		return err
	}
	p, err := w.planning()
	if err != nil {
		return err
	}
	a := pipeline.Application{Planning: p, Private: os.Getenv("PLAN_PRIVATE_KEY"), Accept: os.Getenv("PLAN_ACCEPT"), Check: c.planChecker(w, token, trusted)}
	switch {
	case sealed != "":
		if a.Sealed, err = os.ReadFile(sealed); err != nil {
			return usageError{err.Error()}
		}
	default:
		client := gitlab.Client{URL: os.Getenv("CI_API_V4_URL"), Project: os.Getenv("CI_PROJECT_ID"), Token: os.Getenv("APPLY_GITLAB_TOKEN")}
		a.Sealed, err = client.Artifact(ctx, p.Commit, job, "plan/"+pipeline.SealedFile)
		if errors.Is(err, gitlab.ErrNoArtifact) {
			a.Missing, err = err, nil
		}
		if err != nil {
			return err
		}
	}
	s, err := t.Do(ctx, a)
	var stop *pipeline.Stop
	if errors.As(err, &stop) {
		fmt.Fprint(c.stdout, s.Text())
		fmt.Fprintf(c.stderr, "homelab terraform apply: %v\n", stop)
		return exitError(exitRefused)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.stdout, "Done: "+s.Headline())
	return nil
}

// planChecker is homelab plan-check on a plan that is about to be applied.
func (c *call) planChecker(w *planning, token, trusted string) func(context.Context, plan.Plan, []byte) error {
	return func(_ context.Context, _ plan.Plan, text []byte) error {
		one := call{stdin: bytes.NewReader(text), args: []string{"-"}}
		v := one.judgePlan(planCall{token: token, trusted: trusted, expendable: w.expendable})
		if v.Verdict == "passes" {
			return nil
		}
		var said strings.Builder
		v.print(&said)
		return &pipeline.Stop{Why: "homelab plan-check refuses this plan, and nothing is applied:\n" + said.String()}
	}
}

type noting struct {
	*planning
	json, api, project, request string
	print                       bool
}

func (c *call) planNote(ctx context.Context, w *noting) error {
	text, err := c.noteText(w)
	if err != nil {
		return err
	}
	if w.print {
		fmt.Fprint(c.stdout, text)
		return nil
	}
	request, err := strconv.Atoi(w.request)
	if err != nil || request < 1 {
		return usageError{fmt.Sprintf("the merge request %q is no number: say --request, or run this in a merge request's pipeline", w.request)}
	}
	client := gitlab.Client{URL: w.api, Project: w.project, Token: os.Getenv("PLAN_NOTE_TOKEN")}
	note, created, err := client.Upsert(ctx, request, gitlab.Marker("plan:"+w.state), text)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"id": note.ID, "created": created})
	}
	fmt.Fprintf(c.stdout, "Note %d in merge request %d is %s.\n", note.ID, request, map[bool]string{true: "made", false: "written anew"}[created])
	return nil
}

func (c *call) noteText(w *noting) (string, error) {
	switch {
	case w.json == "" && len(c.args) == 1:
		text, err := os.ReadFile(c.args[0])
		if errors.Is(err, fs.ErrNotExist) {
			return "", usageError{c.args[0] + " is not there: homelab terraform plan --out makes it"}
		}
		return string(text), err
	case w.json == "" || len(c.args) > 0:
		return "", usageError{"name one file, or --plan FILE"}
	}
	in := c.stdin
	if w.json != "-" {
		f, err := os.Open(w.json)
		if err != nil {
			return "", usageError{err.Error()}
		}
		defer f.Close()
		in = f
	}
	read, err := plan.Read(in)
	if err != nil {
		return "", err
	}
	p, err := w.planning.planning()
	if err != nil {
		return "", err
	}
	s := pipeline.Summary{Plan: read, Findings: plan.Judge(read, p.Options), Cost: read.Cost(p.Prices), Currency: p.Prices.Currency, AsOf: p.Prices.AsOf,
		Commit: p.Commit, Pipeline: p.Pipeline, Made: p.Now, State: p.State}
	return s.Note(), nil
}
