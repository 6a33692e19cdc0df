package restic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Dump writes a file of a snapshot, or a folder as a tar archive, to w as it comes: it may be larger than the memory.
func (r Repo) Dump(ctx context.Context, snapshot, path string, w io.Writer) error {
	r.RetryLock = 0
	cmd := r.command(ctx, []string{"dump", "--no-lock", "--archive", "tar", snapshot, path})
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &tail{buf: &said}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("run restic dump: %w", ctx.Err())
	case errors.As(err, &exit):
		return &Error{Command: "dump", Code: exit.ExitCode(), Text: r.scrub(lastWords(said.Bytes()))}
	}
	return fmt.Errorf("run restic: %w: install it with role restic", err)
}
