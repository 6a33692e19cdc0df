package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"home.arpa/lab/internal/strict"
)

// An Inbox takes jobs that are dropped as files into the queue folder of a vault, and shows in its other folders what becomes
// of them:
//
//	queue -> active -> completed, and a note with the answer
//	                -> failed, and a note with the reason
//
// A file is acknowledged when it lies in the active folder and its job is in the database. Each step is a rename or a
// transaction, and each can be told to be done from what is there; so whoever is killed in between, the next pass goes on.
//
//   - A file in the active folder of which no job is known was moved, but not submitted: it is submitted.
//   - A job's path in the database says where its file lies; while it is moved, also where to (Job.next).
//   - A note that stands where the answer belongs and has the job's number in its first lines is the answer.
//
// An Inbox has one writer, Run; what it finds wrong with the vault stops no job.
type Inbox struct {
	jobs    *Service
	folders Folders
	log     *slog.Logger
	seen    map[string]sight  // files in the queue, by name
	strange bool              // the active folder may hold files of which no job is known
	started bool              // the folders were there once
	mounted bool              // the vault was a disk of its own
	reached func(step string) // for tests: a step of a file's way is done

	mu    sync.Mutex
	fault string
	since time.Time
}

// A sight is how a file looked, and since when it looks so.
type sight struct {
	size  int64
	mtime int64 // unix nanoseconds
	inode uint64
	since time.Time
}

const (
	// settled is how long a file has to look the same before it counts: whoever writes it may not have finished.
	settled = 2 * time.Second
	// The queue is looked at this often, and when a job changes, but not more often than that. A look lists the queue folder
	// and nothing else, so it costs the same in a vault of any size. File events (inotify) would not do instead: network
	// mounts send none, and a file has to be looked at again after two seconds anyway.
	lookEvery  = 500 * time.Millisecond
	lookApart  = 50 * time.Millisecond
	afterFault = 5 * time.Second
	// batch is how many files or jobs one pass takes up, so that neither waits long for the other.
	batch = 100
	// enough faults in one pass are the disk's, not the files'.
	enough = 10
)

// NewInbox returns the inbox of s's folders, which Config.Folders named.
func NewInbox(s *Service) *Inbox {
	return &Inbox{jobs: s, folders: *s.config.Folders, log: s.log, seen: map[string]sight{}, strange: true, reached: func(string) {}}
}

// Fault says what is wrong with the folders, and since when; "" nothing is.
func (in *Inbox) Fault() (string, time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fault, in.since
}

// Run works until ctx ends.
func (in *Inbox) Run(ctx context.Context) error {
	for {
		changed := in.jobs.Changed()
		more, err := in.pass(ctx, time.Now())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in.tell(err)
		wait := lookEvery
		if err != nil {
			wait, changed = afterFault, nil
		}
		if more {
			wait = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		case <-changed:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(lookApart):
			}
		}
	}
}

// tell logs a fault once, and its end.
func (in *Inbox) tell(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	says := ""
	if err != nil {
		says = err.Error()
	}
	switch {
	case says == in.fault:
		return
	case says == "":
		in.log.Info("the vault folders work again", "after", time.Since(in.since).Round(time.Second))
	case in.fault == "":
		in.since = time.Now()
		fallthrough
	default:
		in.log.Error("the vault folders do not work; jobs go on, and files wait", "error", says)
	}
	in.fault = says
}

// pass looks at everything once. more says that it did not do all there is to do.
func (in *Inbox) pass(ctx context.Context, now time.Time) (more bool, err error) {
	defer func() {
		if err != nil {
			in.strange = true
			err = explained(err)
		}
	}()
	root, err := os.OpenRoot(in.folders.Vault)
	if err != nil {
		return false, err
	}
	defer root.Close() //nolint:errcheck // what was written through it is on the disk
	if err := in.prepare(root); err != nil {
		return false, err
	}
	late, errDue := in.due(ctx, root)
	errStrange := in.strangers(ctx, root)
	many, errTake := in.take(ctx, root, now)
	return late || many, errors.Join(errDue, errStrange, errTake)
}

// explained says what to do about the faults that a disk has.
func explained(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: make room on the disk of the vault", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: this user has to be able to write into the vault's folders", err)
	case errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%w: the folders have to be on one file system", err)
	}
	return err
}

// prepare makes the folders. What was a disk of its own and is none any more, or had a queue folder and has none, is not the
// vault: it was unmounted.
func (in *Inbox) prepare(root *os.Root) error {
	mounted, err := isMount(root, in.folders.Vault)
	if err != nil {
		return err
	}
	if in.mounted && !mounted {
		return fmt.Errorf("%s is not the disk that it was: is the vault mounted? If it has moved for good, start the program again", in.folders.Vault)
	}
	in.mounted = mounted
	if in.started {
		if ok, err := there(root, in.folders.Queue); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%s is gone from %s: is the vault mounted? If it is, make the folder", in.folders.Queue, in.folders.Vault))
		}
	}
	for _, p := range in.folders.Below() {
		if err := folder(root, p); err != nil {
			return fmt.Errorf("make vault folder: %w", err)
		}
	}
	in.started = true
	return nil
}

// strangers submits the files in the active folder of which no job is known: this program ended, or the database refused,
// between the rename and the submission.
func (in *Inbox) strangers(ctx context.Context, root *os.Root) error {
	if !in.strange {
		return nil
	}
	files, err := listed(root, in.folders.Active)
	if err != nil {
		return err
	}
	var wrong []error
	for _, f := range files {
		if ignored(f.Name()) || f.IsDir() {
			continue
		}
		p := path.Join(in.folders.Active, f.Name())
		known, err := hasFile(ctx, in.jobs.db.Read(), p)
		if err == nil && !known {
			in.log.Info("take up a file that was not submitted", "file", p)
			err = in.submit(ctx, root, p, f.Name())
		}
		if err != nil {
			if wrong = append(wrong, err); len(wrong) == enough {
				break
			}
		}
	}
	in.strange = len(wrong) > 0
	return errors.Join(wrong...)
}

func listed(root *os.Root, dir string) ([]fs.DirEntry, error) {
	d, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// take has the files go into the active folder that have looked the same for long enough, and submits them: in the order of
// their age, copies that Syncthing made of a conflict after what they are copies of.
func (in *Inbox) take(ctx context.Context, root *os.Root, now time.Time) (more bool, err error) {
	ready, err := in.ready(root, now)
	if err != nil {
		return false, err
	}
	var wrong []error
	for i, name := range ready {
		if i == batch+len(wrong) {
			return len(wrong) == 0, errors.Join(wrong...)
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if err := in.claim(ctx, root, name); err != nil {
			if wrong = append(wrong, err); len(wrong) == enough {
				break
			}
		}
	}
	return false, errors.Join(wrong...)
}

// ready lists the files in the queue that count.
func (in *Inbox) ready(root *os.Root, now time.Time) ([]string, error) {
	files, err := listed(root, in.folders.Queue)
	if err != nil {
		return nil, err
	}
	seen := map[string]sight{}
	var ready []string
	for _, f := range files {
		if ignored(f.Name()) || f.IsDir() {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		look := sight{size: info.Size(), mtime: info.ModTime().UnixNano(), since: now}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			look.inode = st.Ino
		}
		if before, ok := in.seen[f.Name()]; ok && before.size == look.size && before.mtime == look.mtime && before.inode == look.inode {
			look.since = before.since
		}
		seen[f.Name()] = look
		if now.Sub(look.since) >= settled {
			ready = append(ready, f.Name())
		}
	}
	in.seen = seen
	ready = slices.DeleteFunc(ready, func(name string) bool {
		_, waits := seen[conflictOf(name)]
		return waits
	})
	slices.SortFunc(ready, func(a, b string) int { return cmp.Or(cmp.Compare(seen[a].mtime, seen[b].mtime), strings.Compare(a, b)) })
	return ready, nil
}

// claim moves a file from the queue into the active folder, under a name that is free there, and submits it.
func (in *Inbox) claim(ctx context.Context, root *os.Root, name string) error {
	in.reached("before rename")
	strange := in.strange
	for n := 1; ; n++ {
		p := path.Join(in.folders.Active, numbered(name, n))
		if known, err := hasFile(ctx, in.jobs.db.Read(), p); err != nil {
			return err
		} else if known {
			continue
		}
		err := rename(root, path.Join(in.folders.Queue, name), p)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case errors.Is(err, fs.ErrNotExist): // somebody took it back
			return nil
		case err != nil:
			return fmt.Errorf("take %s: %w", name, err)
		}
		in.reached("renamed")
		in.strange = true // until it is submitted
		if err := in.absolve(root, path.Join(in.folders.Failed, name)); err != nil {
			return err
		}
		if err := in.submit(ctx, root, p, name); err != nil {
			return err
		}
		in.strange = strange
		return nil
	}
}

// submit reads a file in the active folder and makes it a job; what is not one goes to the failed folder.
func (in *Inbox) submit(ctx context.Context, root *os.Root, p, name string) error {
	text, err := readWhole(root, p, maxFile)
	var odd errOdd
	switch {
	case errors.As(err, &odd):
		return in.refuse(ctx, root, p, strict.Faults{{Text: "the file " + odd.Error()}})
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", p, err)
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:])
	if original := conflictOf(name); original != "" {
		id, err := sameDropped(ctx, in.jobs.db.Read(), original, hash)
		if err == nil {
			return in.refuse(ctx, root, p, strict.Faults{{Text: fmt.Sprintf(
				"the file is Syncthing's copy of %s with the same content, which is job %d already: nothing is lost, delete this copy", original, id)}})
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	j, faults := readPrompt(name, text, &in.folders)
	if len(faults) > 0 {
		return in.refuse(ctx, root, p, faults)
	}
	j.Dropped, j.File, j.hash = name, p, hash
	if j, _, err = in.jobs.acknowledge(ctx, j); err != nil {
		return fmt.Errorf("submit %s: %w", p, err)
	}
	in.log.Info("took a job from the vault", "file", p, "job", j.ID)
	in.reached("submitted")
	return nil
}

// refuse moves a file that is not a job into the failed folder, with the reason beside it.
func (in *Inbox) refuse(ctx context.Context, root *os.Root, p string, faults strict.Faults) error {
	for n := 1; ; n++ {
		to := path.Join(in.folders.Failed, numbered(path.Base(p), n))
		free, err := in.free(ctx, root, to, nil)
		if err != nil {
			return err
		}
		if !free {
			continue
		}
		if err := in.explain(root, reasonOf(to), in.folders.refused(to, faults)); err != nil {
			return err
		}
		in.reached("reason written")
		err = rename(root, p, to)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move %s: %w", p, err)
		}
		in.log.Warn("a file in the vault is not a job", "file", to, "reason", reasonOf(to))
		return nil
	}
}

// free says whether a job's file (j nil: one that is no job) may be moved to a name: nothing is there, no other job's file
// is to be, and, in the failed folder, the reason's name is free or has a reason that has lost its file.
func (in *Inbox) free(ctx context.Context, root *os.Root, to string, j *Job) (bool, error) {
	taken, err := there(root, to)
	if err != nil || taken {
		return false, err
	}
	if j == nil || j.next != to {
		if known, err := in.claimed(ctx, to); err != nil || known {
			return false, err
		}
	}
	if path.Dir(to) != in.folders.Failed {
		return true, nil
	}
	reason, own, err := in.reasonBeside(root, to)
	return reason == "" || own, err
}

// claimed says whether a job's file is to be at a name where none is. A job with which nothing more happens by itself gives it up.
func (in *Inbox) claimed(ctx context.Context, p string) (bool, error) {
	if known, err := hasFile(ctx, in.jobs.db.Read(), p); err != nil || !known {
		return false, err
	}
	if err := in.jobs.db.Tx(ctx, func(tx *transaction) error { return forget(ctx, tx, p) }); err != nil {
		return false, err
	}
	return hasFile(ctx, in.jobs.db.Read(), p)
}

// reasonBeside returns the note where the reason of a file in the failed folder belongs, "" where there is none, and whether it is
// one that this program wrote.
func (in *Inbox) reasonBeside(root *os.Root, file string) (p string, own bool, err error) {
	text, err := readWhole(root, reasonOf(file), maxFile)
	var odd errOdd
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil && !errors.As(err, &odd):
		return "", false, err
	}
	return reasonOf(file), isReason(text), nil
}

// absolve removes the reason of a file that was in the failed folder and is dropped once more.
func (in *Inbox) absolve(root *os.Root, file string) error {
	if still, err := there(root, file); err != nil || still {
		return err
	}
	return in.removeReason(root, file)
}

// removeReason removes the reason beside a file in the failed folder.
func (in *Inbox) removeReason(root *os.Root, file string) error {
	p, own, err := in.reasonBeside(root, file)
	if err != nil || !own {
		return err
	}
	return root.Remove(p)
}

// explain writes a reason, in place of one that has lost its file.
func (in *Inbox) explain(root *os.Root, p string, text []byte) error {
	err := create(root, p, text)
	if errors.Is(err, fs.ErrExist) {
		err = rewrite(root, p, text)
	}
	if err != nil {
		return fmt.Errorf("write reason %s: %w", p, err)
	}
	return nil
}
