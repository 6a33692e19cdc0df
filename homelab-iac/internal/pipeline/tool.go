// Package pipeline is what the jobs of a pipeline do with Terraform: a plan in each merge request, which leaves the job sealed and is told
// without a single value, and an apply on main that does what was read there or nothing.
package pipeline

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/internal/plan"
)

// A Tool is Terraform or OpenTofu in one folder.
type Tool struct {
	Program string   // terraform or tofu
	Dir     string   // the root module
	Env     []string // all that it sees: Environment makes it
	Secrets []string // no line that is shown holds one of these
	Log     io.Writer
	// Wait is how long a lock that somebody else has is waited for; 0 means five minutes.
	Wait time.Duration
}

// passed are the variables of a job that Terraform is to see. TF_LOG is not one: its log holds every request with its secrets.
var passed = []string{"PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
	"TF_CLI_CONFIG_FILE", "TF_PLUGIN_CACHE_DIR", "TF_DATA_DIR", "TF_WORKSPACE", "TF_ENCRYPTION"}

// Environment makes what Terraform sees out of a job's environment: a few names as they are, those that begin with prefix (PLAN_ or
// APPLY_) without it, and the address of the state, which is in the project's own GitLab unless TF_HTTP_ADDRESS names another. Everything
// else stays behind, the other prefix's credentials above all. The second result are the values that no log may hold.
func Environment(job []string, prefix, state string) (env, secrets []string) {
	all := map[string]string{}
	for _, pair := range job {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	for name, value := range all {
		bare, ours := strings.CutPrefix(name, prefix)
		switch {
		case ours && bare != "":
			env = append(env, bare+"="+value)
			secrets = append(secrets, value)
		case slices.Contains(passed, name), strings.HasPrefix(name, "TF_HTTP_"), strings.HasPrefix(name, "TF_VAR_"):
			env = append(env, name+"="+value)
		}
		if strings.Contains(name, "TOKEN") || strings.Contains(name, "PASSWORD") || strings.Contains(name, "SECRET") || strings.HasSuffix(name, "_KEY") ||
			strings.HasPrefix(name, "PLAN_") || strings.HasPrefix(name, "APPLY_") || strings.HasPrefix(name, "TF_VAR_") {
			secrets = append(secrets, value)
		}
	}
	if api := all["CI_API_V4_URL"]; api != "" && all["TF_HTTP_ADDRESS"] == "" {
		// By environment and not by -backend-config, which would put the job's token into the plan file: apply could not lock with it.
		at := strings.TrimRight(api, "/") + "/projects/" + url.PathEscape(all["CI_PROJECT_ID"]) + "/terraform/state/" + url.PathEscape(state)
		env = append(env, "TF_HTTP_ADDRESS="+at, "TF_HTTP_LOCK_ADDRESS="+at+"/lock", "TF_HTTP_UNLOCK_ADDRESS="+at+"/lock", "TF_HTTP_LOCK_METHOD=POST",
			"TF_HTTP_UNLOCK_METHOD=DELETE", "TF_HTTP_USERNAME=gitlab-ci-token", "TF_HTTP_PASSWORD="+all["CI_JOB_TOKEN"], "TF_HTTP_RETRY_WAIT_MIN=2")
	}
	slices.Sort(env)
	return append(env, "TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1"), clean(secrets)
}

// clean leaves the secrets that can be told from ordinary words, the longest first.
func clean(all []string) []string {
	all = slices.DeleteFunc(all, func(s string) bool { return len(strings.TrimSpace(s)) < 6 })
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(all)
}

// hide takes secrets out of a text, as they are and as JSON, URLs and Go would write them.
func (t *Tool) hide(text string) string {
	for _, s := range t.Secrets {
		quoted, _ := json.Marshal(s) // a string always has a JSON form
		for _, form := range []string{s, string(quoted[1 : len(quoted)-1]), url.QueryEscape(s), url.PathEscape(s)} {
			text = strings.ReplaceAll(text, form, "[hidden]")
		}
		for line := range strings.Lines(s) { // a key of many lines may be shown in part
			if line = strings.TrimSpace(line); len(line) >= 16 {
				text = strings.ReplaceAll(text, line, "[hidden]")
			}
		}
	}
	return text
}

func (t *Tool) say(format string, args ...any) {
	if t.Log != nil {
		fmt.Fprintln(t.Log, t.hide(fmt.Sprintf(format, args...)))
	}
}

// run runs the program and returns what it wrote to stdout. What it says is never shown as it is: values stand in it.
func (t *Tool) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, t.Program, args...)
	cmd.Dir, cmd.Env = t.Dir, t.Env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // it gives its lock back
	cmd.WaitDelay = 2 * time.Minute
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, t.fault(args[0], err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

// fault makes an error of what the program said: its diagnostics, without the lines of configuration and the values that it quotes.
func (t *Tool) fault(verb string, err error, out, errs []byte) error {
	var missing *exec.Error
	if errors.As(err, &missing) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %s is not there: install Terraform 1.11 or OpenTofu, or name it with --program", verb, t.Program)
	}
	said := []error{fmt.Errorf("%s %s: %w", filepath.Base(t.Program), verb, err)}
	for line := range bytes.Lines(out) {
		var told struct {
			Level      string     `json:"@level"`
			Diagnostic diagnostic `json:"diagnostic"`
		}
		if json.Unmarshal(line, &told) == nil && told.Diagnostic.Severity == "error" {
			said = append(said, errors.New(t.hide(told.Diagnostic.text())))
		}
	}
	var validated struct {
		Diagnostics []diagnostic `json:"diagnostics"`
	}
	if json.Unmarshal(out, &validated) == nil {
		for _, d := range validated.Diagnostics {
			said = append(said, errors.New(t.hide(d.text())))
		}
	}
	if len(said) == 1 && len(errs) > 0 {
		said = append(said, errors.New(t.hide(headlines(errs))))
	}
	return errors.Join(said...)
}

type diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	Address  string `json:"address"`
	Range    struct {
		File  string `json:"filename"`
		Start struct {
			Line int `json:"line"`
		} `json:"start"`
	} `json:"range"`
}

// quoted is what stands in quotation marks in a provider's words: it may be a value of the state.
func quoted(detail string) string {
	parts := strings.Split(detail, `"`)
	for i := 1; i < len(parts)-1; i += 2 {
		if len(parts[i]) > 3 && strings.ContainsAny(parts[i], "0123456789=+/ ") {
			parts[i] = "..."
		}
	}
	return strings.Join(parts, `"`)
}

func (d diagnostic) text() string {
	text := d.Summary
	if d.Range.File != "" {
		text = fmt.Sprintf("%s:%d: %s", d.Range.File, d.Range.Start.Line, text)
	}
	if d.Address != "" {
		text = d.Address + ": " + text
	}
	if d.Detail != "" {
		text += ": " + quoted(strings.Join(strings.Fields(d.Detail), " "))
	}
	return text
}

// headlines are the lines that begin an error in what is meant for people.
func headlines(errs []byte) string {
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(errs))
	for lines.Scan() {
		if _, text, ok := strings.Cut(lines.Text(), "Error: "); ok {
			out = append(out, text)
		}
	}
	if len(out) == 0 {
		return "it said nothing that can be shown here: run it by hand"
	}
	return strings.Join(out, "; ")
}

// Init makes the folder ready. Where the providers' hashes are written down (.terraform.lock.hcl), no others are taken.
func (t *Tool) Init(ctx context.Context) error {
	args := []string{"init", "-input=false", "-no-color"}
	if _, err := os.Stat(filepath.Join(t.Dir, ".terraform.lock.hcl")); err == nil {
		args = append(args, "-lockfile=readonly")
	}
	_, err := t.run(ctx, args...)
	return err
}

// State returns the state's lineage and serial; "" and -1 where there is none yet.
func (t *Tool) State(ctx context.Context) (lineage string, serial int64, err error) {
	text, err := t.run(ctx, "state", "pull")
	if err != nil {
		return "", 0, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return "", -1, nil
	}
	var told struct {
		Lineage string `json:"lineage"`
		Serial  int64  `json:"serial"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return "", 0, errors.New("read the state: it is not JSON: look at the state in GitLab (Operate, Terraform states)")
	}
	return told.Lineage, told.Serial, nil
}

// Plan writes a plan file.
func (t *Tool) Plan(ctx context.Context, file string, lock bool) error {
	args := []string{"plan", "-input=false", "-json", "-out=" + file}
	if lock {
		args = append(args, "-lock-timeout="+t.wait())
	} else {
		args = append(args, "-lock=false")
	}
	_, err := t.run(ctx, args...)
	return err
}

func (t *Tool) wait() string {
	if t.Wait == 0 {
		return "5m"
	}
	return t.Wait.String()
}

// Show reads a plan file. The text is what the program prints of it, values included.
func (t *Tool) Show(ctx context.Context, file string) (plan.Plan, []byte, error) {
	text, err := t.run(ctx, "show", "-json", file)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	p, err := plan.Read(bytes.NewReader(text))
	return p, text, err
}

// Apply applies a plan file and tells what becomes of each resource, by address.
func (t *Tool) Apply(ctx context.Context, file string) error {
	out, err := t.run(ctx, "apply", "-input=false", "-json", "-lock-timeout="+t.wait(), file)
	for line := range bytes.Lines(out) {
		var told struct {
			Type string `json:"type"`
			Hook struct {
				Action   string `json:"action"`
				Resource struct {
					Address string `json:"addr"`
				} `json:"resource"`
			} `json:"hook"`
		}
		if json.Unmarshal(line, &told) == nil && told.Type == "apply_complete" {
			t.say("  %s: %s", told.Hook.Resource.Address, told.Hook.Action)
		}
	}
	return err
}

// temporary makes a folder that nobody else reads.
func temporary() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "homelab-plan-*")
	return dir, func() { os.RemoveAll(dir) }, err
}
