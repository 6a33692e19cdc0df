package library

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
)

// exclusions are the patterns of what the owner does not want indexed. They are kept with the index.
type exclusions struct{ patterns atomic.Pointer[[]string] }

func (x *exclusions) list() []string {
	if p := x.patterns.Load(); p != nil {
		return *p
	}
	return nil
}

// hides says that a pattern matches p or a folder that p is in. A pattern without a slash is matched against each name of the path, one
// with a slash against the whole, from the top (path.Match).
func (x *exclusions) hides(p string) bool {
	return slices.ContainsFunc(x.list(), func(pattern string) bool { return matches(pattern, p) })
}

// matches says that pattern matches p or a folder that p is in.
func matches(pattern, p string) bool {
	for at := 0; at < len(p); at++ {
		end := strings.IndexByte(p[at:], '/')
		if end = at + end; end < at {
			end = len(p)
		}
		what := p[:end]
		if !strings.Contains(pattern, "/") {
			what = p[at:end]
		}
		if ok, err := path.Match(pattern, what); err == nil && ok {
			return true
		}
		at = end
	}
	return false
}

// Exclude leaves out what pattern matches from now on: a name or a path, * and ? standing for any characters or one but a slash. The
// notes are taken out of the index at the next look, which comes at once where Run runs.
func (l *Library) Exclude(ctx context.Context, pattern string) error {
	pattern = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(pattern), "**"), "/")
	if _, err := path.Match(pattern, "x"); err != nil || pattern == "" || strings.HasPrefix(pattern, "/") {
		return fmt.Errorf("exclude %q: it is no pattern of names below the notes' folder; write for example drafts, *.tmp.md or projects/old", pattern)
	}
	return l.setExcluded(ctx, append(l.Excluded(), pattern))
}

// Include takes a pattern back. One that is not there is an error.
func (l *Library) Include(ctx context.Context, pattern string) error {
	all := l.Excluded()
	rest := slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == pattern })
	if len(rest) == len(all) {
		return fmt.Errorf("include %q: it is not excluded; excluded are: %s", pattern, strings.Join(all, ", "))
	}
	return l.setExcluded(ctx, rest)
}

// Excluded returns the patterns, sorted.
func (l *Library) Excluded() []string { return slices.Clone(l.source.excluded.list()) }

func (l *Library) setExcluded(ctx context.Context, patterns []string) error {
	slices.Sort(patterns)
	patterns = slices.Compact(patterns)
	if err := writeExcluded(ctx, l.db, patterns); err != nil {
		return err
	}
	l.source.excluded.patterns.Store(&patterns)
	l.nudge()
	return nil
}
