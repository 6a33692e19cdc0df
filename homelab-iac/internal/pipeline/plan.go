package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"home.arpa/lab/homelab-iac/internal/plan"
)

// The files that a plan leaves.
const (
	SealedFile  = "plan.sealed" // the plan, for apply only
	NoteFile    = "note.md"     // the summary, for the merge request
	ReportFile  = "report.json" // for GitLab's widget
	SummaryFile = "summary.txt" // the summary, for a terminal
)

// A Planning is what Make needs beside the tool.
type Planning struct {
	Public   string // the key that the plan is sealed with; empty: no plan file is left
	Out      string // the folder for the files
	Commit   string
	Pipeline string
	State    string // its name, for people
	Prices   plan.Prices
	Options  plan.Options
	Now      time.Time
}

func (p Planning) summary(read plan.Plan) Summary {
	return Summary{Plan: read, Findings: plan.Judge(read, p.Options), Cost: read.Cost(p.Prices), Currency: p.Prices.Currency, AsOf: p.Prices.AsOf,
		Commit: p.Commit, Pipeline: p.Pipeline, Made: p.Now, State: p.State}
}

// Make plans without a lock, which a merge request's pipeline may not take, and leaves what there is to tell of it. The plan file itself
// and its JSON never lie in Out.
func (t *Tool) Make(ctx context.Context, p Planning) (Summary, error) {
	dir, remove, err := temporary()
	if err != nil {
		return Summary{}, err
	}
	defer remove()
	if err := t.Init(ctx); err != nil {
		return Summary{}, err
	}
	lineage, serial, err := t.State(ctx)
	if err != nil {
		return Summary{}, err
	}
	file := filepath.Join(dir, "plan")
	if err := t.Plan(ctx, file, false); err != nil {
		return Summary{}, err
	}
	read, _, err := t.Show(ctx, file)
	if err != nil {
		return Summary{}, err
	}
	s := p.summary(read)
	files := map[string][]byte{NoteFile: []byte(s.Note()), ReportFile: Report(read), SummaryFile: []byte(s.Text())}
	if p.Public != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return s, err
		}
		if files[SealedFile], err = Seal(Bundle{p.Commit, lineage, serial, p.Now, text}, p.Public); err != nil {
			return s, err
		}
	}
	if p.Out == "" {
		return s, nil
	}
	if err := os.MkdirAll(p.Out, 0o700); err != nil {
		return s, fmt.Errorf("write the plan: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.Out, name), text, 0o600); err != nil {
			return s, fmt.Errorf("write the plan: %w", err)
		}
	}
	return s, nil
}

// A Stop is why nothing was applied, though nothing failed: what would be done is not what was read.
type Stop struct{ Why string }

func (s *Stop) Error() string { return s.Why }

// ErrNoPlan says that there is no plan that was read in a merge request.
var ErrNoPlan = errors.New("there is no plan that was read in a merge request")

// An Application is what Do needs beside the tool.
type Application struct {
	Planning
	Sealed  []byte // the plan of the merge request; nil where there is none: Missing says why
	Missing error
	Private string // the key that opens it
	Accept  string // the fingerprint that a person has read and let pass; "" none
	// Check has the last word on a plan: an error stops. It is given what terraform show -json prints.
	Check func(ctx context.Context, read plan.Plan, text []byte) error
}

// Do applies what was read in the merge request: the very plan if the state is still the one that it was made for, and otherwise a new one
// if it would do exactly the same. Whatever else there would be to do ends with a *Stop and changes nothing.
func (t *Tool) Do(ctx context.Context, a Application) (Summary, error) {
	dir, remove, err := temporary()
	if err != nil {
		return Summary{}, err
	}
	defer remove()
	if err := t.Init(ctx); err != nil {
		return Summary{}, err
	}
	lineage, serial, err := t.State(ctx)
	if err != nil {
		return Summary{}, err
	}
	var read *plan.Plan // what a person has read
	if a.Sealed != nil {
		b, err := Open(a.Sealed, a.Private)
		if err != nil {
			return Summary{}, err
		}
		if b.Commit != a.Commit {
			return Summary{}, &Stop{fmt.Sprintf("the plan is of commit %.8s and this is %.8s: nothing is applied. Run the merge request's pipeline again", b.Commit, a.Commit)}
		}
		file := filepath.Join(dir, "read")
		if err := os.WriteFile(file, b.Plan, 0o600); err != nil {
			return Summary{}, err
		}
		if err := sameConfiguration(b.Plan, t.Dir); err != nil {
			return Summary{}, &Stop{"the plan was not made of this commit's files: " + err.Error() + ". Nothing is applied"}
		}
		p, text, err := t.Show(ctx, file)
		if err != nil {
			return Summary{}, err
		}
		if b.Lineage == lineage && b.Serial == serial {
			t.say("The state is still number %d: what was read in the merge request is applied.", serial)
			return t.carryOut(ctx, a, p, text, file)
		}
		t.say("The state was number %d when the plan was read, and is number %d now: planning again.", b.Serial, serial)
		read = &p
	}
	return t.again(ctx, a, dir, lineage, read)
}

// again plans anew, and goes on only if the plan is the one that a person has read.
func (t *Tool) again(ctx context.Context, a Application, dir, lineage string, read *plan.Plan) (Summary, error) {
	file := filepath.Join(dir, "new")
	if err := t.Plan(ctx, file, true); err != nil {
		return Summary{}, err
	}
	p, text, err := t.Show(ctx, file)
	if err != nil {
		return Summary{}, err
	}
	s := a.summary(p)
	print := p.Fingerprint(lineage)
	switch {
	case p.Empty():
		t.say("Nothing changes.")
		return s, nil
	case a.Accept != "" && a.Accept == print:
		t.say("A person has read this plan and let it pass.")
	case read != nil && read.Fingerprint(lineage) == print:
		t.say("It would do exactly what was read in the merge request.")
	case read != nil:
		return s, &Stop{"somebody else has changed something, and what would be done now is not what was read in the merge request. Nothing is applied. " + accept(print)}
	default:
		why := ErrNoPlan
		if a.Missing != nil {
			why = a.Missing
		}
		return s, &Stop{fmt.Sprintf("%v: nothing is applied. %s", why, accept(print))}
	}
	return t.carryOut(ctx, a, p, text, file)
}

func accept(print string) string {
	return "Read the summary above; to have exactly this done, run a pipeline on main with the variable PLAN_ACCEPT=" + print
}

func (t *Tool) carryOut(ctx context.Context, a Application, p plan.Plan, text []byte, file string) (Summary, error) {
	s := a.summary(p)
	if p.Empty() {
		t.say("Nothing changes.")
		return s, nil
	}
	if a.Check != nil {
		if err := a.Check(ctx, p, text); err != nil {
			return s, err
		}
	}
	return s, t.Apply(ctx, file)
}
