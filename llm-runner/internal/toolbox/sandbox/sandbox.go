// Package sandbox has the tool that runs Python: in namespaces of its own, without network, on a system that it can only read, with
// bounds on time, memory, processes and output, and killed with everything that it started. It is made of bubblewrap; where that is
// missing the tool is off and says what to install.
package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

// Config is what a Sandbox may be told. The zero value works.
type Config struct {
	Python    string        // "" means /usr/bin/python3; it must be below /usr
	Timeout   time.Duration // of one run at most; 0 means 30 seconds
	Memory    int64         // bytes of all processes together; 0 means 512 MiB
	Disk      int64         // bytes that can be written to the home folder, and again to /tmp; 0 means 64 MiB
	Processes int           // at once, threads included; 0 means 64
	Output    int           // bytes of stdout, and again of stderr, that are kept; 0 means 16 KiB
}

// A Sandbox runs code. It is safe for concurrent use.
type Sandbox struct {
	c     Config
	probe sync.Mutex
	ready bool      // a probe went well
	why   string    // it did not, and why
	asked time.Time // when
}

// New returns a Sandbox. Nothing is looked at yet.
func New(c Config) *Sandbox {
	c.Python, c.Timeout = cmp.Or(c.Python, "/usr/bin/python3"), cmp.Or(c.Timeout, 30*time.Second)
	c.Memory, c.Disk = cmp.Or(c.Memory, 512<<20), cmp.Or(c.Disk, 64<<20)
	c.Processes, c.Output = cmp.Or(c.Processes, 64), cmp.Or(c.Output, 16<<10)
	return &Sandbox{c: c}
}

// An Outcome is what became of a run.
type Outcome struct {
	Stdout, Stderr string // the first bytes of each
	Lost           int64  // bytes of both that were not kept
	Code           int    // exit status; -1 where it was killed
	Killed         string // why it was; "" it was not
	Took           time.Duration
}

// Missing says why nothing can be run here, and what to do; "" it can. What is wrong is looked at again after a minute.
func (s *Sandbox) Missing() string {
	s.probe.Lock()
	defer s.probe.Unlock()
	if s.ready || !s.asked.IsZero() && time.Since(s.asked) < time.Minute {
		return s.why
	}
	s.asked = time.Now()
	if s.why = s.absent(); s.why != "" {
		return s.why
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := s.Run(ctx, "print(6*7)", 10*time.Second)
	switch {
	case err != nil:
		s.why = fmt.Sprintf("the sandbox does not start (%v): does this system allow user namespaces? sysctl kernel.unprivileged_userns_clone, "+
			"kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces", err)
	case strings.TrimSpace(out.Stdout) != "42":
		first, _, _ := strings.Cut(strings.TrimSpace(cmp.Or(out.Stderr, out.Killed)), "\n")
		s.why = fmt.Sprintf("the sandbox does not work here (%s): does this system allow user namespaces? sysctl kernel.unprivileged_userns_clone, "+
			"kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces", first)
	default:
		s.ready = true
	}
	return s.why
}

type arguments struct {
	Code    string `json:"code" jsonschema:"a Python 3 program; what it prints is the result"`
	Seconds int    `json:"seconds,omitempty" jsonschema:"how long it may run; the limit if left out"`
}

// Tool returns code_exec.
func (s *Sandbox) Tool() toolbox.Tool {
	t := toolbox.Tool{Name: "code_exec", Effects: true, Outside: true, Policy: toolbox.Ask, Timeout: s.c.Timeout + 15*time.Second, Off: s.Missing,
		Description: "Runs a Python 3 program in a sandbox without network and without files of the person, and returns what it printed. " +
			"Nothing is kept from one run to the next."}
	t.Preview = func(_ context.Context, raw json.RawMessage) (toolbox.Preview, error) {
		var a arguments
		err := toolbox.Arguments(raw, &a)
		return toolbox.Preview{Text: a.Code}, err
	}
	return toolbox.Make(t, func(ctx context.Context, _ toolbox.Call, a arguments) (toolbox.Result, error) {
		if strings.TrimSpace(a.Code) == "" {
			return toolbox.Result{}, errors.New("code: it is empty")
		}
		limit := s.c.Timeout
		if a.Seconds < 0 {
			return toolbox.Result{}, fmt.Errorf("seconds: %d is below zero", a.Seconds)
		}
		if wanted := time.Duration(a.Seconds) * time.Second; a.Seconds > 0 && wanted < limit {
			limit = wanted
		}
		out, err := s.Run(ctx, a.Code, limit)
		return toolbox.Result{Text: out.String()}, err
	})
}

// String is an outcome for the model.
func (o Outcome) String() string {
	var b strings.Builder
	if o.Stdout != "" {
		b.WriteString(strings.TrimRight(o.Stdout, "\n") + "\n")
	}
	if o.Stderr != "" {
		b.WriteString("stderr:\n" + strings.TrimRight(o.Stderr, "\n") + "\n")
	}
	if o.Lost > 0 {
		fmt.Fprintf(&b, "[%d more bytes were printed and not kept]\n", o.Lost)
	}
	switch {
	case o.Killed != "":
		fmt.Fprintf(&b, "[killed: %s]\n", o.Killed)
	case o.Code != 0:
		fmt.Fprintf(&b, "[exit status %d]\n", o.Code)
	case b.Len() == 0:
		b.WriteString("[it printed nothing]\n")
	}
	return b.String()
}

// A capped writer keeps the first bytes and counts the others.
type capped struct {
	room int
	text []byte
	lost int64
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.room-len(c.text))
	c.text = append(c.text, p[:n]...)
	c.lost += int64(len(p) - n)
	return len(p), nil
}
