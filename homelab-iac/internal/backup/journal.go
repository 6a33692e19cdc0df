package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// ErrBusy means that another backup or maintenance is at work on this machine.
var ErrBusy = errors.New("another backup is at work on this machine: wait for it; systemctl status homelab-backup-fast homelab-backup-slow show it")

// shortly is how long Hold tries at least: Cut looks at the lock for a moment.
const shortly = time.Second

// Hold takes the machine's lock, which the kernel gives back whatever becomes of this process. It waits for who holds it, and after
// that returns ErrBusy.
func Hold(ctx context.Context, state string, wait time.Duration) (release func(), err error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("make the state's place: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	for end := time.Now().Add(max(wait, shortly)); ; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		left := time.Until(end)
		if !errors.Is(err, syscall.EWOULDBLOCK) || left <= 0 || ctx.Err() != nil {
			break
		}
		t := time.NewTimer(min(left, shortly/10))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	return nil, fmt.Errorf("take the lock: %w", err)
}

// Cut says when a run of the tier began that was killed, and at which service; ok is false where none was, or it is at work.
func Cut(state, tier string) (began time.Time, service string, ok bool) {
	left, found := leftBehind(state, tier)
	if !found {
		return began, "", false
	}
	return left.Started, left.Service, idle(state)
}

// idle says whether nobody holds the machine's lock.
func idle(state string) bool {
	f, err := os.Open(filepath.Join(state, "lock"))
	if err != nil {
		return true
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil
}

// leftBehind reads a tier's journal. A half-written one is as old as its file.
func leftBehind(state, tier string) (left journal, ok bool) {
	path := filepath.Join(state, "running-"+tier+".json")
	text, err := os.ReadFile(path)
	if err != nil {
		return left, false
	}
	if st, err := os.Stat(path); json.Unmarshal(text, &left) != nil && err == nil {
		left = journal{Started: st.ModTime().UTC()}
	}
	return left, true
}

// A journal is on disk while a run is at work. One that lies there without a run is what a killed run left.
type journal struct {
	path    string
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Service string    `json:"service"` // at which it is
	Stopped []string  `json:"stopped"` // services whose containers stand still
}

func (j *journal) write() error { return writeJSON(j.path, j) }

func (j *journal) forget(service string) {
	j.Stopped = slices.DeleteFunc(j.Stopped, func(s string) bool { return s == service })
}

func (j *journal) remove() error {
	if len(j.Stopped) > 0 {
		return j.write() // something stands still: the next run starts it
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end the journal: %w", err)
	}
	return nil
}

// heal clears up what a killed run left: dumps go, containers that stand still are started. What cannot be started stays in j.
func (r *Run) heal(ctx context.Context, j *journal) error {
	var left journal
	text, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read the journal: %w", err)
	case json.Unmarshal(text, &left) != nil:
		r.Say("the last run was killed while it wrote its journal")
	default:
		r.Say(fmt.Sprintf("the run of %s was cut short at %q: clearing up", left.Started.Format(time.RFC3339), left.Service))
	}
	var all error
	for _, s := range r.Services {
		all = errors.Join(all, r.removeDumps(s.Name))
		if slices.Contains(left.Stopped, s.Name) {
			j.Stopped = append(j.Stopped, s.Name)
			all = errors.Join(all, r.resume(ctx, s, j))
		}
	}
	return all
}

// Unfinished is when a run of the tier began that did not end, or zero. Snapshots from then on are not believed before the next
// run: one may lack something that its run did not live to mark.
func Unfinished(state, tier string) time.Time {
	left, _ := leftBehind(state, tier)
	return left.Started
}

// memory is what a tier's runs remember on this machine.
type memory struct {
	path     string
	Services map[string]Remembered `json:"services"`
}

// Remembered is the last good backup of a service.
type Remembered struct {
	Good     time.Time        `json:"good"`
	Snapshot string           `json:"snapshot"`
	Files    int64            `json:"files"`
	Bytes    int64            `json:"bytes"`
	Dumps    map[string]int64 `json:"dumps"` // bytes
}

// Dumped is when the dumps of a service were last written well.
func Dumped(state, tier, service string) time.Time {
	m, err := recall(state, tier)
	if err != nil {
		return time.Time{}
	}
	return m.Services[service].Good
}

func recall(state, tier string) (*memory, error) {
	m := &memory{path: filepath.Join(state, "last-"+tier+".json"), Services: map[string]Remembered{}}
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the last run left: %w", err)
	}
	if json.Unmarshal(text, m) != nil || m.Services == nil {
		m.Services = map[string]Remembered{} // comparisons begin anew
	}
	return m, nil
}

func (m *memory) learn(report *Report) {
	for _, o := range report.Services {
		if o.Good() {
			m.Services[o.Service] = Remembered{Good: report.Ended, Snapshot: o.Snapshot, Files: o.Files, Bytes: o.Bytes, Dumps: o.Dumps}
		}
	}
}

func (m *memory) save() error { return writeJSON(m.path, m) }

// writeJSON writes a file whole or not at all.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, text, 0o600)
}

// WriteFile writes a file whole or not at all.
func WriteFile(path string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
