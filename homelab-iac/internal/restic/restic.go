// Package restic runs restic: arguments come from pure functions, every exit code has a meaning, and what restic prints as
// JSON is read back. Written against restic 0.19 (doc/075_scripting.rst); 0.17 is the oldest that has the exit codes.
package restic

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exit codes of restic (doc/075_scripting.rst). An unknown one is a failure.
const (
	CodeFailed    = 1
	CodeRuntime   = 2
	CodePartial   = 3 // backup: some source could not be read; forget: some snapshot could not be removed
	CodeNoRepo    = 10
	CodeLocked    = 11
	CodePassword  = 12
	CodeCancelled = 130
)

// A Repo is one repository with one key.
type Repo struct {
	Binary       string        // "" means restic on the PATH
	URL          string        // s3:https://..., or a folder
	PasswordFile string        //
	Env          []string      // the key: AWS_ACCESS_KEY_ID=..., AWS_SECRET_ACCESS_KEY=...
	Cache        string        // "" means restic's own
	RetryLock    time.Duration // how long restic itself waits for a lock; 0: not at all
}

// An Error is a restic that did not exit with 0.
type Error struct {
	Command string // restic's first argument
	Code    int
	Text    string // what it said last, without secrets
	late    bool   // it was given no more time
}

func (e *Error) Error() string {
	return fmt.Sprintf("run restic %s: exit code %d: %s: %s", e.Command, e.Code, e.Text, e.cure())
}

func (e *Error) cure() string {
	for _, r := range refusals {
		if strings.Contains(e.Text, r.words) {
			return r.cure
		}
	}
	if e.late {
		return "there was no answer in time: the storage is slow or away, or much is new; the next run goes on where this one stopped"
	}
	switch e.Code {
	case CodePartial:
		return "some files could not be read or removed: mend what the lines above name and run it again"
	case CodeNoRepo:
		return "there is no repository: check the URL; make a new one with homelab backup init"
	case CodeLocked:
		return "another restic works there, or died there: homelab backup locks shows whose lock it is"
	case CodePassword:
		return "the password is wrong: take it from the break-glass kit"
	case CodeCancelled:
		return "it was interrupted; run it again"
	}
	return "homelab backup check tells whether the repository is whole"
}

// refusals are what S3 says to a client that it does not take (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), in its
// codes or in the words that restic puts for them, each with its cure.
var refusals = []struct{ words, cure string }{
	{"difference between the request time and the", skewed},
	{"RequestTimeTooSkewed", skewed},
	{"ExpiredToken", ended},
	{"token has expired", ended},
	{"InvalidAccessKeyId", unknown},
	{"Access Key Id you provided does not exist", unknown},
	{"SignatureDoesNotMatch", unknown},
	{"signature we calculated does not match", unknown},
	{"AccessDenied", forbidden},
	{"is not authorized to perform", forbidden},
	{"Access Denied", forbidden},
	{"Resolving password failed", "the file with the password cannot be read: role restic writes it, and it is in the break-glass kit"},
	{"invalid lock file", "a lock is damaged: when no restic works there, delete that one file below locks/ with the storage's own tools"},
	{"no space left on device", "a disk is full: make room and run it again"},
}

const (
	skewed    = "the clock of this machine is more than 15 minutes wrong, or the storage's is: look at timedatectl"
	ended     = "the key has ended: make a new one and give it to role restic"
	unknown   = "the storage does not know this key or its secret: take both from the secrets again"
	forbidden = "the storage does not let this key do that: is it the right one of the three?"
)

// CodeOf is restic's exit code in err, or 0 where err is none of restic's.
func CodeOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// grace is how long restic may take to stop by itself, removing its lock, before it is killed.
const grace = 20 * time.Second

// Run runs restic and returns what it printed. With lines, each line of the output goes there instead. When ctx ends restic
// is interrupted first, so that it removes its lock.
func (r Repo) Run(ctx context.Context, args []string, lines func([]byte)) ([]byte, error) {
	cmd := r.command(ctx, args)
	var out, said bytes.Buffer
	cmd.Stderr = &tail{buf: &said}
	var read func()
	if lines == nil {
		cmd.Stdout = &out
		read = func() {}
	} else {
		pipe, w := io.Pipe()
		cmd.Stdout = w
		done := make(chan struct{})
		go func() {
			defer close(done)
			scan := bufio.NewScanner(pipe)
			scan.Buffer(make([]byte, 64<<10), 16<<20)
			for scan.Scan() {
				lines(scan.Bytes())
			}
			io.Copy(io.Discard, pipe) //nolint:errcheck // the rest of a line that is too long
		}()
		read = func() {
			w.Close() //nolint:errcheck // it never fails
			<-done
		}
	}
	err := cmd.Run()
	read()
	if err == nil {
		return out.Bytes(), nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("run restic: %w: install it with role restic", err)
	}
	e := &Error{Command: args[0], Code: exit.ExitCode(), Text: r.scrub(lastWords(said.Bytes()))}
	if e.Code < 0 || ctx.Err() != nil { // killed, or interrupted by us
		e.Code = CodeCancelled
		if ctx.Err() != nil {
			e.Text = strings.TrimSpace(ctx.Err().Error() + " " + e.Text)
			e.late = errors.Is(ctx.Err(), context.DeadlineExceeded)
		} else if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Text = "it was killed by a signal (" + status.Signal().String() + "), perhaps for its memory; " + e.Text
		}
	}
	return out.Bytes(), e
}

func (r Repo) command(ctx context.Context, args []string) *exec.Cmd {
	binary := r.Binary
	if binary == "" {
		binary = "restic"
	}
	if r.RetryLock > 0 {
		args = append([]string{args[0], "--retry-lock", r.RetryLock.String()}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), r.Environ()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = grace
	return cmd
}

// Environ is what restic finds the repository by; the key is part of it.
func (r Repo) Environ() []string {
	env := append([]string{"RESTIC_REPOSITORY=" + r.URL, "RESTIC_PASSWORD_FILE=" + r.PasswordFile, "RESTIC_PROGRESS_FPS=1"}, r.Env...)
	if r.Cache != "" {
		env = append(env, "RESTIC_CACHE_DIR="+r.Cache)
	}
	return env
}

// scrub takes keys and passwords in URLs out of a text.
func (r Repo) scrub(text string) string {
	for _, kv := range r.Env {
		if _, value, _ := strings.Cut(kv, "="); len(value) >= 8 {
			text = strings.ReplaceAll(text, value, "***")
		}
	}
	if _, rest, ok := strings.Cut(r.URL, "://"); ok {
		if user, _, ok := strings.Cut(rest, "@"); ok && user != "" && !strings.Contains(user, "/") {
			text = strings.ReplaceAll(text, user+"@", "***@")
		}
	}
	return text
}

// tail keeps the last part of what a program says.
type tail struct{ buf *bytes.Buffer }

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - tailBytes; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

// lastWords puts what restic said on stderr into one line: the messages of its JSON, else its last lines.
func lastWords(said []byte) string {
	var words []string
	for line := range bytes.Lines(said) {
		line = bytes.TrimSpace(line)
		var m struct {
			Message string `json:"message"`
			Item    string `json:"item"`
			Error   struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		text := string(line)
		if json.Unmarshal(line, &m) == nil {
			text = m.Message + m.Error.Message
			if m.Item != "" && !strings.Contains(text, m.Item) {
				text = m.Item + ": " + text
			}
		}
		if text = strings.TrimSpace(strings.TrimPrefix(text, "Fatal: ")); text != "" {
			words = append(words, text)
		}
	}
	if len(words) > 4 {
		words = words[len(words)-4:]
	}
	if len(words) == 0 {
		return "it said nothing"
	}
	return strings.Join(words, "; ")
}
