package progress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/whole"
)

// Config is where a Service finds projects.
type Config struct {
	DB *db.DB
	// List returns the paths of the notes that are projects; Read returns one of them, fs.ErrNotExist where it is gone.
	List func(ctx context.Context) ([]string, error)
	Read func(ctx context.Context, path string) ([]byte, error)
	Dir  string       // the folder that the paths are below; "": the notes cannot be changed
	Log  *slog.Logger // nil: slog.Default()
}

// A Service shows projects and ticks their tasks. It is safe for concurrent use.
type Service struct {
	config Config
	log    *slog.Logger

	commits *commits

	mu   sync.Mutex
	last map[string]Day // what was written last, by path
}

// New returns a service.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Service{config: c, log: c.Log, last: map[string]Day{}, commits: newCommits(c.Dir)}
}

// every is how often the day's numbers are written down while nobody looks.
const every = time.Hour

// Run writes down each day's numbers until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := s.Board(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("read progress", "error", err) // the next hour tries again
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Board reads all projects as they are now.
func (s *Service) Board(ctx context.Context) (Board, error) {
	paths, err := s.config.List(ctx)
	if err != nil {
		return Board{}, err
	}
	var projects []Project
	days := map[string]Day{}
	today := time.Now().Format(time.DateOnly)
	for _, p := range paths {
		text, err := s.config.Read(ctx, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since it was indexed
		}
		if err != nil {
			return Board{}, err
		}
		project := Parse(p, text)
		projects = append(projects, project)
		done, total := project.Count()
		days[p] = Day{today, done, total, FromSeen}
	}
	s.note(ctx, days)
	return Lay(projects), nil
}

// note writes down what changed. That a disk refuses it keeps nobody from looking.
func (s *Service) note(ctx context.Context, days map[string]Day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, d := range days {
		if s.last[p] == d {
			delete(days, p)
		}
	}
	if len(days) == 0 {
		return
	}
	if err := remember(ctx, s.config.DB, days); err != nil {
		s.log.Debug("write progress", "error", err)
		return
	}
	for p, d := range days {
		s.last[p] = d
	}
}

// An Up is the way up of a project, day by day.
type Up struct {
	Project string `json:"project"`
	Path    string `json:"path"`
	Days    []Day  `json:"days"`
	Says    string `json:"says,omitempty"` // why there are no days of commits
}

// History returns what is known of a project each day from a day on, oldest first, and why there is nothing of commits. Days of which nothing
// is known are left out. It never waits for git: what it is reading is there the next time; wait, where it is not nil, is closed then.
func (s *Service) History(ctx context.Context, file string, from time.Time) (up Up, wait <-chan struct{}, err error) {
	first := from.Format(time.DateOnly)
	seen, err := history(ctx, s.config.DB, file, first)
	if err != nil {
		return up, nil, err
	}
	text, err := s.config.Read(ctx, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return up, nil, err
	}
	project := Parse(file, text)
	commits, says, wait := s.commits.look(file)
	if says == "" && wait != nil && len(commits) == 0 {
		says = "its commits are being read: load the page again"
	}
	if s.config.Dir == "" { // the handbook
		says = ""
	}
	up = Up{Project: project.Title, Path: file, Days: Merge(seen, commits, project), Says: says}
	up.Days = slices.DeleteFunc(up.Days, func(d Day) bool { return d.Day < first })
	return up, wait, nil
}

// upDays is how far ways up look back.
const upDays = 400

// Ups returns a board's projects with their ways up, as History does. patient waits for git, as long as ctx lets it and the bounds of reading.
func (s *Service) Ups(ctx context.Context, b Board, patient bool) (all []Up, err error) {
	all = []Up{}
	for i, r := range b.Rows {
		if i > 0 && b.Rows[i-1].Path == r.Path {
			continue
		}
		from := time.Now().AddDate(0, 0, -upDays)
		up, wait, err := s.History(ctx, r.Path, from)
		if err == nil && patient && wait != nil {
			select {
			case <-wait:
			case <-ctx.Done():
				return all, ctx.Err()
			}
			up, _, err = s.History(ctx, r.Path, from)
		}
		if err != nil {
			return all, err
		}
		all = append(all, up)
	}
	return all, nil
}

// Editable says that tasks can be ticked.
func (s *Service) Editable() bool { return s.config.Dir != "" }

// A ConflictError says that a task does not stand any more where it was seen.
type ConflictError struct {
	Path string
	Line int
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("line %d of %s has changed since the page was made: load the page again", e.Line, e.Path)
}

// Tick marks a task as done, or takes the mark away. The task must stand on its line with the same text, or it is a *ConflictError.
// Of the note one byte changes; it is replaced in one step, so that nobody sees half of it.
func (s *Service) Tick(ctx context.Context, file string, line int, text string, done bool) error {
	if s.config.Dir == "" {
		return errors.New("these notes are part of the program and cannot be changed: name your own with --vault DIR or vault.path")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock() // two ticks of one note follow each other
	defer s.mu.Unlock()
	known, err := s.config.List(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, p := range known {
		found = found || p == file
	}
	if !found {
		return fmt.Errorf("tick a task of %s: %w: no project's note has that path", file, fs.ErrNotExist)
	}
	root, err := os.OpenRoot(s.config.Dir)
	if err != nil {
		return fmt.Errorf("tick a task of %s: %w", file, err)
	}
	defer root.Close()
	before, err := root.Lstat(file)
	if err != nil {
		return fmt.Errorf("tick a task of %s: %w", file, err)
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("tick a task of %s: it is a link; open the note that it leads to", file)
	}
	content, err := root.ReadFile(file)
	if err != nil {
		return fmt.Errorf("tick a task of %s: %w", file, err)
	}
	at := find(Parse(file, content), line, text)
	if at < 0 || content[at+1] != ']' { // a mark of several bytes is somebody's own
		return &ConflictError{file, line}
	}
	mark := byte(' ')
	if done {
		mark = 'x'
	}
	if content[at] == mark {
		return nil
	}
	content[at] = mark
	if err := whole.Replace(root, file, content, before, nil); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// find returns the byte of a task's mark, -1 where the task is not there.
func find(p Project, line int, text string) int {
	for _, phase := range p.Phases {
		for _, t := range phase.Tasks {
			if t.Line == line && t.Text == text && !t.Dropped {
				return t.mark
			}
		}
	}
	return -1
}
