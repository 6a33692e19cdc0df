package jobs

import (
	"context"
	"errors"
	"maps"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A standing is what a running job stands in the lines of machines that do a few things at a time. That is waiting, and its deadline counts
// it. It is added to what the job has waited when its run ends, and once a minute until then, since a process may die.
type standing struct {
	job      int64
	run      int
	before   time.Duration // what it had waited when the run began
	patience *llm.Patience
	stop     func()
}

// stand returns the context of a job's run, which ends when the job has stood in lines for as long as its deadline lets it.
func (s *Service) stand(ctx context.Context, j *Job) (context.Context, *standing) {
	most := time.Duration(0)
	if j.Deadline > 0 {
		most = max(j.Deadline-j.Waited, time.Millisecond)
	}
	x := &standing{job: j.ID, run: j.Run, before: j.Waited}
	ctx, x.patience, x.stop = llm.WithPatience(ctx, most)
	s.mu.Lock()
	s.inLines[j.key()] = x
	s.mu.Unlock()
	return ctx, x
}

// count adds to what the job has waited what it stood in lines, and returns in whose it stood last.
func (x *standing) count(j *Job) string {
	d, where := x.patience.Waited()
	j.Waited = max(j.Waited, x.before+d)
	return where
}

// keepStood writes down what the jobs of this process have stood in lines.
func (s *Service) keepStood(ctx context.Context) error {
	s.mu.Lock()
	all := maps.Clone(s.inLines)
	s.mu.Unlock()
	var wrong []error
	for _, x := range all {
		if d, _ := x.patience.Waited(); d < time.Second {
			continue
		}
		_, err := s.change(ctx, x.job, func(_ *transaction, j *Job) error {
			was := j.Waited
			if x.count(j); j.State != Running || j.Run != x.run || j.Waited-was < time.Second {
				return errStale
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStale) && !errors.Is(err, ErrNotFound) {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}
