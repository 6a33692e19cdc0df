// Package deploy puts another version of one service on this machine: it pulls exactly one digest, starts it, asks whether it is healthy,
// and goes back to what ran before if it is not. A run that is killed anywhere is finished by the next one.
//
// What runs is named by one tag that never leaves the machine's own Docker: compose.yaml says NAME:deployed, and a deployment moves that tag.
// So a backup, a restore and Ansible start the same version, and none of them has to know of deployments.
package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A Target is one service here.
type Target struct {
	Service   string   // its name
	Container string   // in its compose.yaml
	Image     string   // NAME:TAG, as compose.yaml has it
	Docker    []string // how Docker is called
	Compose   []string // how Docker Compose is called for this service
	Health    []string // addresses that must answer with 200
	State     string   // a folder for what is remembered
	Wait      time.Duration
	Pause     time.Duration // between two questions; 0: a second
	Say       func(string)
}

// steady is how often in a row the service must answer before it is believed: one that starts, answers and falls over is not healthy.
const steady = 3

// stepTime bounds one call of Docker: a pull of 60 MB on a slow line.
const stepTime = 10 * time.Minute

// A Result is how a deployment went. It is what the machine remembers, too.
type Result struct {
	Wanted   string    `json:"wanted"`           // NAME@sha256:...
	ID       string    `json:"id"`               // of the image, as Docker calls it
	Previous string    `json:"previous"`         // the image that ran before; "" none
	State    string    `json:"state"`            // begun, healthy, back (the one before runs again) or down (nothing does)
	Reason   string    `json:"reason,omitempty"` // why it is not healthy
	At       time.Time `json:"at"`
}

// A Refusal is why nothing was touched.
type Refusal struct{ Why string }

func (r *Refusal) Error() string { return r.Why }

var wantedForm = regexp.MustCompile(`^([a-z0-9][a-z0-9._:/-]*)@(sha256:[0-9a-f]{64})$`)

// Run deploys. With an error the Result says what runs now. ctx may end it: then the one before is brought back all the same.
func (t Target) Run(ctx context.Context, wanted string) (Result, error) {
	m := wantedForm.FindStringSubmatch(wanted)
	name, _, _ := strings.Cut(t.Image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	if m == nil || m[1] != name {
		return Result{}, &Refusal{fmt.Sprintf("%.200q is not %s@sha256:... with 64 digits: only that image may be deployed as %s", wanted, name, t.Service)}
	}
	release, err := t.hold()
	if err != nil {
		return Result{}, err
	}
	defer release()

	r := Result{Wanted: wanted, State: "begun", At: time.Now().UTC()}
	if last := t.Last(); last.State == "begun" || last.State == "down" {
		r.Previous = last.Previous // a run that was killed moved the tag already: what it had found is what was well
	} else if r.Previous, err = t.id(ctx, t.Image); err != nil {
		r.Previous = "" // nothing has run here yet
	}
	t.Say("pulling " + wanted)
	if _, err := t.docker(ctx, "pull", "--quiet", wanted); err != nil {
		return r, fmt.Errorf("deploy %s: %w: nothing was touched", t.Service, err)
	}
	if r.ID, err = t.id(ctx, wanted); err != nil {
		return r, fmt.Errorf("deploy %s: %w: nothing was touched", t.Service, err)
	}
	if err := t.remember(r); err != nil {
		return r, err
	}
	err = t.start(ctx, r.ID)
	if err == nil {
		r.State = "healthy"
		t.Say("it is healthy")
		return r, t.remember(r)
	}
	r.Reason = err.Error()
	return t.back(context.WithoutCancel(ctx), r)
}

// back brings the one before back.
func (t Target) back(ctx context.Context, r Result) (Result, error) {
	if r.Previous == "" || r.Previous == r.ID {
		r.State = "down"
		return r, errors.Join(fmt.Errorf("deploy %s: %s, and there is nothing to go back to", t.Service, r.Reason), t.remember(r))
	}
	t.Say("it is not healthy: going back to what ran before")
	if err := t.start(ctx, r.Previous); err != nil {
		r.State = "down"
		return r, errors.Join(fmt.Errorf("deploy %s: %s; what ran before does not come back either: %w: look at docker logs and docs/runbooks/deployment.md", t.Service, r.Reason, err), t.remember(r))
	}
	r.State = "back"
	return r, errors.Join(fmt.Errorf("deploy %s: %s; what ran before runs again", t.Service, r.Reason), t.remember(r))
}

// start moves the tag, has Compose start what it names, and waits until it is healthy.
func (t Target) start(ctx context.Context, id string) error {
	if _, err := t.docker(ctx, "tag", id, t.Image); err != nil {
		return err
	}
	if _, err := t.run(ctx, t.Compose, "up", "--detach", "--no-build", "--pull", "never", t.Container); err != nil {
		return err
	}
	return t.healthy(ctx, id)
}

// healthy waits until the container that runs is of that image and answers several times in a row.
func (t Target) healthy(ctx context.Context, id string) error {
	wait, pause := t.Wait, t.Pause
	if wait == 0 {
		wait = 2 * time.Minute
	}
	if pause == 0 {
		pause = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for good := 0; ; {
		err := t.ask(ctx, id)
		if err != nil {
			good = 0
		} else if good++; good == steady {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if err == nil {
				err = errors.New("it answers, but not for long enough")
			}
			return fmt.Errorf("it is not healthy after %s: %w", wait, err)
		}
	}
}

func (t Target) ask(ctx context.Context, id string) error {
	container, err := t.run(ctx, t.Compose, "ps", "--quiet", t.Container)
	if err != nil {
		return err
	}
	if container == "" {
		return errors.New("it does not run")
	}
	of, err := t.docker(ctx, "inspect", "--format", "{{.Image}}", container)
	if err != nil {
		return err
	}
	if of != id {
		return fmt.Errorf("what runs is %.19s", of)
	}
	for _, address := range t.Health {
		if err := get(ctx, address); err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, resp.Status)
	}
	return nil
}

func (t Target) id(ctx context.Context, image string) (string, error) {
	return t.docker(ctx, "image", "inspect", "--format", "{{.Id}}", image)
}

func (t Target) docker(ctx context.Context, args ...string) (string, error) {
	return t.run(ctx, t.Docker, args...)
}

func (t Target) run(ctx context.Context, call []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	all := append(append([]string{}, call[1:]...), args...)
	cmd := exec.CommandContext(ctx, call[0], all...)
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(errs.String())
		if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		return "", fmt.Errorf("docker %s: %w: %.300s", args[0], err, said)
	}
	return strings.TrimSpace(out.String()), nil
}

func (t Target) file() string { return filepath.Join(t.State, "deploy-"+t.Service+".json") }

// Last is what was deployed last, as the machine remembers it; the zero Result where nothing was.
func (t Target) Last() (r Result) {
	if text, err := os.ReadFile(t.file()); err == nil && json.Unmarshal(text, &r) != nil {
		return Result{}
	}
	return r
}

func (t Target) remember(r Result) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	part := t.file() + ".part"
	if err := os.WriteFile(part, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember the deployment: %w", err)
	}
	return os.Rename(part, t.file())
}

// hold keeps a second deployment of the service out.
func (t Target) hold() (release func(), err error) {
	if err := os.MkdirAll(t.State, 0o700); err != nil {
		return nil, fmt.Errorf("deploy %s: %w", t.Service, err)
	}
	f, err := os.OpenFile(filepath.Join(t.State, "deploy-"+t.Service+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("deploy %s: %w", t.Service, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &Refusal{"another deployment of " + t.Service + " is at work: wait for it"}
	}
	return func() { f.Close() }, nil
}
