package extract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Bounds of the process that reads one document.
const (
	Patience = 2 * time.Minute  // on a machine that has other things to do
	work     = 30 * time.Second // of a processor; a book of a thousand pages takes a second or two
	memory   = 768 << 20        // bytes; the largest web page takes some 500 MB
	maxReply = 4*MaxText + 1<<20
	atOnce   = 2 // processes; more documents wait
)

// A reply is what the process says.
type reply struct {
	Result     json.RawMessage `json:"result,omitempty"`
	Unreadable string          `json:"unreadable,omitempty"`
}

// A Pool reads what strangers wrote in processes of its own: a command, whose main calls Reply.
type Pool struct {
	command []string
	places  chan struct{}
}

// NewPool returns a Pool of a command with its arguments.
func NewPool(command ...string) *Pool { return &Pool{command, make(chan struct{}, atOnce)} }

// Process returns a Reader that reads each document in a process of its own: command with the format as one more argument, whose main calls
// Serve. What the document does to it (endless loops, memory, a crash) is an Unreadable after Patience at most.
func Process(command ...string) Reader {
	pool := NewPool(command...)
	return func(ctx context.Context, format Format, data []byte) (t Text, err error) {
		return t, pool.Read(ctx, data, &t, string(format))
	}
}

// Read has a process, command with some more arguments, read data, and decodes its result into a value. What data does to it is an Unreadable.
func (p *Pool) Read(ctx context.Context, data []byte, into any, args ...string) error {
	if len(data) > MaxFile {
		return tooLarge()
	}
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	case <-ctx.Done():
		return ctx.Err()
	}
	bounded, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	c := exec.CommandContext(bounded, p.command[0], append(p.command[1:len(p.command):len(p.command)], args...)...)
	c.Args[0] = os.Args[0]                                                    // it is this program, called by its name
	c.Env = []string{"GOMEMLIMIT=512MiB", "GOMAXPROCS=1", "GOTRACEBACK=none"} // and nothing of ours: keys are none of its business
	c.Stdin = bytes.NewReader(data)
	out, faults := &capped{most: maxReply}, &capped{most: 4 << 10}
	c.Stdout, c.Stderr = out, faults
	c.WaitDelay = time.Second
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return Unreadable(fmt.Sprintf("takes longer than %s to read; it may be made to", Patience))
	case errors.As(err, &exit):
		return Unreadable("is damaged, or made to do harm: reading it failed" + because(faults.String()))
	case err != nil:
		return fmt.Errorf("read document in a process of its own: %w", err)
	}
	var r reply
	if err = json.Unmarshal(out.Bytes(), &r); err == nil && r.Unreadable == "" {
		err = json.Unmarshal(r.Result, into)
	}
	switch {
	case err != nil:
		return Unreadable("cannot be read: " + err.Error())
	case r.Unreadable != "":
		return Unreadable(r.Unreadable)
	}
	return nil
}

func because(said string) string {
	switch {
	case strings.Contains(said, "stack overflow"), strings.Contains(said, "stack exceeds"):
		return " (its parts lead in a circle)"
	case strings.Contains(said, "CPU limit exceeded"):
		return fmt.Sprintf(" (it takes more than %s of work)", work)
	case strings.Contains(said, "out of memory"), strings.Contains(said, "cannot allocate"), strings.Contains(said, "failed to allocate"):
		return fmt.Sprintf(" (it needs more than %d MB of memory)", memory>>20)
	}
	return ""
}

// Serve is the other side of Process: it reads a document of a format.
func Serve(ctx context.Context, format string, in io.Reader, out io.Writer) error {
	return Reply(in, out, func(data []byte) (any, error) { return Read(ctx, Format(format), data) })
}

// Reply is the other side of a Pool: it bounds its own memory, has read make a result of what comes from in, and writes that to out.
func Reply(in io.Reader, out io.Writer, read func(data []byte) (any, error)) error {
	confine()
	data, err := io.ReadAll(io.LimitReader(in, MaxFile+1))
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	var r reply
	result, err := read(data)
	if err == nil {
		r.Result, err = json.Marshal(result)
	}
	if err != nil {
		r = reply{Unreadable: err.Error()}
	}
	return json.NewEncoder(out).Encode(r)
}

// capped keeps the first bytes of what is written.
type capped struct {
	bytes.Buffer
	most int
}

func (c *capped) Write(b []byte) (int, error) {
	c.Buffer.Write(b[:max(0, min(len(b), c.most-c.Len()))])
	return len(b), nil
}
