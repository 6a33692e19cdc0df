package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of what is read of a repository, for one note.
const (
	mostCommits = 5000 // that changed it, newest first
	mostDays    = 400  // of which the last commit is read
	mostNote    = 1 << 20
	mostGit     = 30 * time.Second

	lookAgain = time.Minute // how soon it is seen after a look that there are new commits
)

// NoRepository is why most vaults have no commits.
const NoRepository = "the folder of the notes is no git repository with commits, or not one that this user may read"

// errNoGit says why there is no history of commits; its text is for people.
type errNoGit struct{ why string }

func (e errNoGit) Error() string { return e.why }

// commits reads the way up of notes from the repository that their folder is in. Nobody waits for it but who asks to: a look begins a walk,
// beside, where there may be something new, and each commit is read once.
type commits struct {
	dir     string
	program string // "git"; another one in tests
	now     func() time.Time

	walking sync.Mutex // one note after the other: a page of many projects asks for all of them at once

	mu    sync.Mutex
	notes map[string]*walked
}

// walked is what is known of one note.
type walked struct {
	head   string // of the repository, when it was walked
	counts map[string]Day
	days   []Day
	says   string        // why there are none; "" there are, or nobody has looked yet
	looked time.Time     // last
	under  chan struct{} // closed when the walk that is under way has ended; nil none is
}

func newCommits(dir string) *commits {
	return &commits{dir: dir, program: "git", now: time.Now, notes: map[string]*walked{}}
}

// look returns what is known, and begins to read what may be new. The channel is closed once that is known too; nil: nothing is read.
func (c *commits) look(path string) (days []Day, says string, reading <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.notes[path]
	if w == nil {
		w = &walked{counts: map[string]Day{}}
		c.notes[path] = w
	}
	if w.under == nil && (w.looked.IsZero() || c.now().Sub(w.looked) >= lookAgain) {
		under := make(chan struct{})
		w.under = under
		go func() {
			c.walking.Lock()
			defer c.walking.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), mostGit)
			defer cancel()
			head, days, err := c.walk(ctx, path, w.head, w.days, w.counts)
			c.mu.Lock()
			defer c.mu.Unlock()
			w.looked, w.under = c.now(), nil
			w.says = ""
			if err != nil {
				w.says = err.Error()
			} else {
				w.head, w.days = head, days
			}
			close(under)
		}()
	}
	return w.days, w.says, w.under
}

// walk reads the days of a note, as far as the head is another one. counts, by commit, is only used by the one walk of a note.
func (c *commits) walk(ctx context.Context, path, known string, before []Day, counts map[string]Day) (head string, days []Day, err error) {
	if c.dir == "" || strings.ContainsAny(path, "\n\x00") {
		return "", nil, errNoGit{"the notes are in no folder of yours"}
	}
	if _, err := exec.LookPath(c.program); err != nil {
		return "", nil, errNoGit{"git is not installed, so commits are not read"}
	}
	text, err := c.git(ctx, nil, 1<<10, "rev-parse", "--verify", "--quiet", "HEAD")
	if err != nil {
		return "", nil, errNoGit{NoRepository}
	}
	if head = strings.TrimSpace(string(text)); head == known {
		return head, before, nil
	}
	text, err = c.git(ctx, nil, 128*mostCommits, "log", "--no-show-signature", "--format=%H %ct", "--max-count", strconv.Itoa(mostCommits), "HEAD", "--", path)
	if err != nil {
		return "", nil, fmt.Errorf("read the commits of %s: %w", path, err)
	}
	last := map[string]string{} // of each day its last commit
	var order []string
	for line := range strings.Lines(string(text)) {
		hash, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			continue
		}
		day := time.Unix(seconds, 0).Format(time.DateOnly)
		if last[day] == "" {
			last[day] = hash
			order = append(order, day)
		}
	}
	slices.Sort(order)
	order = order[max(0, len(order)-mostDays):]
	var ask []string
	for _, day := range order {
		if _, ok := counts[last[day]]; !ok {
			ask = append(ask, last[day])
		}
	}
	for part := range slices.Chunk(ask, 50) {
		if err := c.read(ctx, path, part, counts); err != nil {
			return "", nil, err
		}
	}
	for _, day := range order {
		if d, ok := counts[last[day]]; ok && d.Total >= 0 {
			days = append(days, Day{day, d.Done, d.Total, FromCommits})
		}
	}
	return head, days, nil
}

// read counts the tasks of a note as it was in commits; a Total of -1 is of one that did not have it, or too large a one.
func (c *commits) read(ctx context.Context, path string, hashes []string, counts map[string]Day) error {
	var names strings.Builder
	for _, h := range hashes {
		fmt.Fprintf(&names, "%s:./%s\n", h, path)
	}
	out, err := c.git(ctx, strings.NewReader(names.String()), 64*mostNote, "cat-file", "--batch")
	if err != nil {
		return fmt.Errorf("read %s in %d commits: %w", path, len(hashes), err)
	}
	for _, h := range hashes {
		if ctx.Err() != nil { // the next look goes on behind those that were counted
			return fmt.Errorf("read %s in %d commits: that took longer than %s", path, len(hashes), mostGit)
		}
		line, rest, ok := bytes.Cut(out, []byte("\n"))
		if !ok {
			return fmt.Errorf("read %s in %d commits: git ended early", path, len(hashes))
		}
		f := strings.Fields(string(line))
		if len(f) != 3 || f[2] == "missing" {
			out, counts[h] = rest, Day{Total: -1}
			continue
		}
		// The size is the object's own word, and one that is damaged may say any: so it is believed as far as there is text.
		size, err := strconv.Atoi(f[2])
		if err != nil || size < 0 || size >= len(rest) {
			return fmt.Errorf("read %s in %d commits: the object %s is damaged; git fsck says more", path, len(hashes), f[0])
		}
		text := rest[:size]
		if out = rest[size+1:]; f[1] != "blob" || size > mostNote { // behind the end of the line
			counts[h] = Day{Total: -1}
			continue
		}
		p := Parse(path, text)
		done, total := p.Count()
		counts[h] = Day{Done: done, Total: total}
	}
	return nil
}

// git runs git in the notes' folder. A repository may come from elsewhere: nothing that it configures is run, and nothing is fetched.
func (c *commits) git(ctx context.Context, in io.Reader, most int, args ...string) ([]byte, error) {
	all := append([]string{"--no-pager", "--literal-pathspecs", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false"}, args...)
	cmd := exec.CommandContext(ctx, c.program, all...) //nolint:gosec // fixed words, and a path behind --
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = c.dir, in, time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0",
		// Objects that are missing would be fetched by a program that the repository names. Git before 2.39.4 knows only the first of the two, which no
		// configuration takes back: no protocol is allowed.
		"GIT_ALLOW_PROTOCOL=", "GIT_NO_LAZY_FETCH=1"}
	out, fault := &bounded{most: most}, &bounded{most: 4 << 10, cut: true}
	cmd.Stdout, cmd.Stderr = out, fault
	if err := cmd.Run(); err != nil {
		switch {
		case out.over:
			err = fmt.Errorf("it is more than %d bytes", most)
		case ctx.Err() != nil:
			err = fmt.Errorf("git did not end within %s", mostGit)
		}
		if says := strings.TrimSpace(fault.String()); says != "" {
			err = fmt.Errorf("%w: %s", err, says)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// bounded is a buffer that takes no more than most bytes.
type bounded struct {
	bytes.Buffer
	most int
	cut  bool // what is more is left out, and no fault
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) <= b.most {
		return b.Buffer.Write(p)
	}
	if b.over = true; !b.cut {
		return 0, errors.New("too much")
	}
	b.Buffer.Write(p[:b.most-b.Len()])
	return len(p), nil
}
