package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// due shows in the vault what became of jobs. What goes wrong with one does not keep the others.
func (in *Inbox) due(ctx context.Context, root *os.Root) (more bool, err error) {
	ids, err := dueJobs(ctx, in.jobs.db.Read(), batch)
	if err != nil {
		return false, err
	}
	var wrong []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if err := in.show(ctx, root, id); err != nil {
			wrong = append(wrong, fmt.Errorf("job %d: %w", id, err))
			if len(wrong) == enough {
				break
			}
		}
	}
	return len(ids) == batch && len(wrong) == 0, errors.Join(wrong...)
}

// show brings a job's file to where it belongs, and the answer or the reason into the vault.
func (in *Inbox) show(ctx context.Context, root *os.Root, id int64) error {
	j, err := in.jobs.Job(ctx, id)
	if err != nil {
		return err
	}
	in.reached("due")
	if err := in.find(ctx, root, &j); err != nil {
		return err
	}
	switch {
	case j.State == Done:
		err = in.move(ctx, root, &j, in.folders.Completed, func(to string) error { return in.deliver(ctx, root, &j, to) })
	case j.State.Ended():
		err = in.move(ctx, root, &j, in.folders.Failed, func(to string) error {
			if to == "" {
				return nil
			}
			defer in.reached("reason written")
			return in.explain(root, reasonOf(to), in.folders.ended(&j, to))
		})
	default:
		err = in.move(ctx, root, &j, in.folders.Active, func(string) error { return nil })
	}
	if err != nil {
		return err
	}
	return in.write(ctx, &j, true)
}

// write keeps where a job's files are, and with done that the vault shows what became of it.
func (in *Inbox) write(ctx context.Context, j *Job, done bool) error {
	return in.jobs.db.Tx(ctx, func(tx *transaction) error {
		if err := place(ctx, tx, j); err != nil || !done {
			return err
		}
		return settle(ctx, tx, j)
	})
}

// find completes a move that was under way when a process ended, and forgets a file that is gone.
func (in *Inbox) find(ctx context.Context, root *os.Root, j *Job) error {
	if j.File == "" {
		return nil
	}
	here, err := there(root, j.File)
	if err != nil || here {
		return err
	}
	moved := false
	if j.next != "" {
		if moved, err = there(root, j.next); err != nil {
			return err
		}
	}
	if moved {
		j.File, j.next = j.next, ""
	} else {
		in.log.Warn("a job's file is gone from the vault; the job goes on without it", "job", j.ID, "file", j.File)
		j.File, j.next = "", ""
	}
	return in.write(ctx, j, false)
}

// move moves a job's file into a folder, under a free name that is written down first. before is called with that name ("":
// the job has no file) and does what belongs before the move; it may be called again after a crash.
func (in *Inbox) move(ctx context.Context, root *os.Root, j *Job, folder string, before func(to string) error) error {
	if j.File == "" || path.Dir(j.File) == folder {
		return before(j.File)
	}
	for n := 1; ; n++ {
		to := path.Join(folder, numbered(path.Base(j.File), n))
		if free, err := in.free(ctx, root, to, j); err != nil {
			return err
		} else if !free {
			continue
		}
		if j.next != to {
			j.next = to
			if err := in.write(ctx, j, false); err != nil {
				return err
			}
			in.reached("destined")
		}
		if err := before(to); err != nil {
			return err
		}
		if path.Dir(j.File) == in.folders.Failed {
			if err := in.removeReason(root, j.File); err != nil {
				return err
			}
		}
		err := rename(root, j.File, to)
		switch {
		case errors.Is(err, fs.ErrExist): // somebody was faster
			continue
		case errors.Is(err, fs.ErrNotExist):
			if still, stat := there(root, j.File); stat != nil || still { // it is the folder that is gone
				return errors.Join(err, stat)
			}
			j.File, j.next = "", "" // somebody took it away
			return nil
		case err != nil:
			return fmt.Errorf("move %s: %w", j.File, err)
		}
		in.reached("moved")
		j.File, j.next = to, ""
		return nil
	}
}

// deliver writes a done job's answer as a note, and links the file that it came from with it.
func (in *Inbox) deliver(ctx context.Context, root *os.Root, j *Job, to string) error {
	timeline, err := in.jobs.Timeline(ctx, j.ID, 0)
	if err != nil {
		return err
	}
	if j.Note == "" {
		front, body, err := in.jobs.report(ctx, j)
		if err != nil {
			return err
		}
		text := render(j, to, worked(timeline), front, body)
		if j.Note, err = in.answer(root, j, text); err != nil {
			return err
		}
		in.log.Info("wrote an answer into the vault", "job", j.ID, "note", j.Note)
		in.reached("note written")
		if err := in.write(ctx, j, false); err != nil {
			return err
		}
	}
	if j.File == "" || j.File == to {
		return nil
	}
	text, err := readWhole(root, j.File, 2*maxFile)
	var odd errOdd
	if errors.As(err, &odd) || errors.Is(err, fs.ErrNotExist) {
		return nil // whatever it is now, it is not the prompt any more
	}
	if err != nil {
		return err
	}
	stamped := stamp(text, j.ID, j.Note)
	if string(stamped) != string(text) {
		if err := rewrite(root, j.File, stamped); err != nil {
			return fmt.Errorf("link %s with its answer: %w", j.File, err)
		}
	}
	in.reached("linked")
	return nil
}

// answer writes the note where the job wants it, or in the outputs folder where that cannot be. It returns where it is.
func (in *Inbox) answer(root *os.Root, j *Job, text []byte) (string, error) {
	if j.Output != "" {
		p, err := in.newNote(root, j, j.Output, text)
		if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) {
			return p, err
		}
		in.log.Warn("an answer cannot be written where its job wants it; it goes into the outputs folder", "job", j.ID, "output", j.Output, "error", err)
	}
	return in.newNote(root, j, in.folders.notePath(j), text)
}

// newNote writes a job's note at p, or with a number where that is taken, unless it is there already.
func (in *Inbox) newNote(root *os.Root, j *Job, p string, text []byte) (string, error) {
	if err := folder(root, path.Dir(p)); err != nil {
		return "", fmt.Errorf("write note %s: %w", p, err)
	}
	for n := 1; ; n++ {
		at := numbered(p, n)
		err := create(root, at, text)
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("write note %s: %w", at, err)
		}
		have, err := readWhole(root, at, 1<<30)
		if err == nil && j.isNoteOf(have) {
			return at, nil
		}
	}
}
