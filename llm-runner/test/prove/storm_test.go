//go:build prove

package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	upstreams "home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/usage"
)

const (
	stormKills   = 200
	stormSeed    = 20261123
	stormModels  = 3
	stormLimit   = 150              // requests in a minute for each model, which come back one by one: fewer than the storm asks for
	takenUpAgain = 2 * time.Second  // after the page is there, as a rule
	longAgain    = 20 * time.Second // and never more, even where others want the machine; who forgets a job finds it after 30 s or never
)

// What a storm has at least, or it was none.
const (
	leastInjected    = 50 // kills at a system call, of stormKills/2
	leastTaken       = 150
	leastInterrupted = 50
)

// writing are the system calls that change files.
const writing = "pwrite64,fdatasync,fsync,ftruncate,renameat,renameat2,unlinkat"

// stormScript is a provider with a limit, faults and answers of several lengths.
const stormScript = `
reply:
  - {match: long, text: "{{input}} and more words of an answer that takes its time", chunk_delay: 15ms}
  - {match: /./, text: "<{{input}}>"}
limits:
  - {dimension: requests/minute, max: %[1]d, model: m0}
  - {dimension: requests/minute, max: %[1]d, model: m1}
  - {dimension: requests/minute, max: %[1]d, model: m2}
faults:
  - {kind: "503", chance: 0.03}
  - {kind: reset_mid_stream, chance: 0.03}
  - {kind: reset_before_headers, chance: 0.03}
seed: 7
`

const stormConfig = `
providers:
  fake:
    kind: openai
    url: %s/v1
    timeout: 5s
    limits:
      - {dimension: requests/minute, max: %[2]d, model: m0}
      - {dimension: requests/minute, max: %[2]d, model: m1}
      - {dimension: requests/minute, max: %[2]d, model: m2}
routes:
  default: {provider: fake, model: m0}
`

// An upstream is a fake provider that remembers every request: how often each model was asked.
type upstream struct {
	mu      sync.Mutex
	asked   map[string]int
	refused []time.Time // with 429
}

func (u *upstream) start(t *testing.T) (url string) {
	s, err := script.Parse(fmt.Appendf(nil, stormScript, stormLimit))
	if err != nil {
		t.Fatal(err)
	}
	f, err := upstreams.New("openai", s)
	if err != nil {
		t.Fatal(err)
	}
	u.asked = map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			var ask struct{ Model string }
			if json.Unmarshal(body, &ask) == nil {
				u.mu.Lock()
				u.asked[ask.Model]++
				u.mu.Unlock()
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
		}
		f.ServeHTTP(&seesStatus{w, u}, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// seesStatus tells an upstream of refusals.
type seesStatus struct {
	http.ResponseWriter
	u *upstream
}

func (w *seesStatus) WriteHeader(status int) {
	if status == http.StatusTooManyRequests {
		w.u.mu.Lock()
		w.u.refused = append(w.u.refused, time.Now())
		w.u.mu.Unlock()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *seesStatus) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A storm is a runner that is killed again and again while it is given work.
type storm struct {
	*runner
	random *rand.Rand
	taken  map[string]int64 // acknowledged jobs by title
	sent   int
	lives  []life
}

// A life of the program: when it was launched, and when its page was there first (zero where it was killed before).
type life struct{ launched, page time.Time }

// Two hundred times the program is killed, at random moments and at system calls counted from its start (so before and after
// commits, in the middle of writes, while it opens its database), while jobs come in for a provider with a limit and faults.
// Every job that was acknowledged ends once and is answered; every request that the provider saw is in the ledger; every row
// of the ledger was a request; the limit is kept; what was interrupted runs again at once; the database is whole.
func TestNothingIsLostHoweverOftenItIsKilled(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is missing: llm-runner/test/setup.sh installs it")
	}
	up := &upstream{}
	s := &storm{taken: map[string]int64{}, random: rand.New(rand.NewPCG(stormSeed, 1))}
	s.runner = newRunner(t, fmt.Sprintf(stormConfig, up.start(t), stormLimit))
	began := time.Now()
	injected := 0
	for n := range stormKills {
		if n%2 == 1 {
			if s.killAtCall() {
				injected++
			}
		} else {
			s.killAtRandom()
		}
	}
	s.under = nil
	s.start()
	s.lives = append(s.lives, life{time.Now(), time.Now()})
	t.Logf("seed %d: killed %d times in %s, %d of them at a system call; %d jobs sent, %d acknowledged", stormSeed, stormKills,
		time.Since(began).Round(time.Second), injected, s.sent, len(s.taken))
	if injected < leastInjected || len(s.taken) < leastTaken { // a storm that does not storm proves nothing
		t.Errorf("only %d of %d kills came at a system call, and only %d jobs were acknowledged: at least %d and %d are wanted", injected, stormKills/2, len(s.taken), leastInjected, leastTaken)
	}
	all := s.settle(4 * time.Minute) // one that many deaths have met waits longer and longer
	s.checkJobs(all)
	s.checkInterrupted(all)
	s.kill()
	s.checkBooks(up)
	d, err := db.OpenRead(t.Context(), filepath.Join(s.dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// killAtRandom gives work and kills some moments later.
func (s *storm) killAtRandom() {
	s.under = nil
	s.lives = append(s.lives, life{launched: time.Now()})
	s.launch()
	s.work(3, time.Duration(s.random.IntN(400))*time.Millisecond)
	s.kill()
}

// killAtCall has the kernel kill the program as it makes its n-th call of those that change files; false where it did not come
// so far.
func (s *storm) killAtCall() bool {
	s.under = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + writing,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", writing, 1+s.random.IntN(160))}
	s.lives = append(s.lives, life{launched: time.Now()})
	s.launch()
	s.work(3, 1500*time.Millisecond)
	return s.killedByItself()
}

// killedByItself ends the program, and says whether the kernel had killed it before: a program that fails, or one that runs
// it and may not trace it, ends by itself too, and is a fault of the test.
func (s *storm) killedByItself() bool {
	s.t.Helper()
	select {
	case <-s.ended:
	default:
		s.kill()
		return false
	}
	state := s.process.ProcessState
	s.kill()
	if end, ok := state.Sys().(syscall.WaitStatus); !ok || !end.Signaled() || end.Signal() != syscall.SIGKILL { // strace ends as what it runs did
		s.t.Fatalf("the program was not killed: it ended with %s:\n%s", state, s.log)
	}
	return true
}

// work waits for the page, sends jobs, and returns after a while or when the program has ended.
func (s *storm) work(n int, while time.Duration) {
	give := time.Now().Add(60 * time.Second)
	for s.get("/metrics", nil) != nil {
		select {
		case <-s.ended:
			return
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(give) {
			s.t.Fatalf("no page:\n%s", s.log)
		}
	}
	if len(s.lives) > 0 {
		s.lives[len(s.lives)-1].page = time.Now()
	}
	for range n {
		s.send()
	}
	select {
	case <-s.ended:
	case <-time.After(while):
	}
}

// send hands in one job and remembers it where it was acknowledged.
func (s *storm) send() {
	s.sent++
	title := fmt.Sprintf("job-%d", s.sent)
	spec := jobs.Spec{Title: title, Prompt: title, Model: fmt.Sprintf("fake/m%d", s.random.IntN(stormModels)), Priority: 1 + s.random.IntN(9), MaxAttempts: 100}
	switch s.random.IntN(4) {
	case 0:
		spec.Type, spec.Prompt = jobs.Chain, "## a\n"+title+"\n## b\nthen {{output}}\n## c\nlong {{output}}"
	case 1:
		spec.Prompt = "long " + title
	}
	body, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/jobs", strings.NewReader(string(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", title)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // killed meanwhile
	}
	defer resp.Body.Close()
	var j jobs.Job
	if resp.StatusCode == http.StatusAccepted && json.NewDecoder(resp.Body).Decode(&j) == nil {
		s.taken[title] = j.ID
	}
}

// ended is a job with what happened to it.
type endedJob struct {
	jobs.Job
	Timeline []jobs.Event
}

// settle waits until every job has ended.
func (s *storm) settle(limit time.Duration) []endedJob {
	type told struct {
		Jobs   []jobs.Job
		Counts map[jobs.State]int
	}
	var list told
	if err := poll(limit, 200*time.Millisecond, func() error {
		list = told{}
		if err := s.get("/api/jobs?limit=1000", &list); err != nil {
			return err
		}
		if n := list.Counts[jobs.Queued] + list.Counts[jobs.Running] + list.Counts[jobs.Held]; n > 0 {
			return fmt.Errorf("%d jobs have not ended: %v", n, list.Counts)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	all := make([]endedJob, len(list.Jobs))
	for i, j := range list.Jobs {
		if err := s.get(fmt.Sprintf("/api/jobs/%d", j.ID), &all[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	return all
}

func (s *storm) checkJobs(all []endedJob) {
	found := map[string]bool{}
	for _, j := range all {
		if found[j.Title] {
			s.t.Errorf("%s is there twice", j.Title)
		}
		found[j.Title] = true
		ends := 0
		for _, e := range j.Timeline {
			if e.To.Ended() && e.From != e.To {
				ends++
			}
		}
		if j.State != jobs.Done || ends != 1 || !strings.Contains(j.Answer, j.Title) || j.Type == jobs.Chain && (j.StepsDone != 3 || !strings.Contains(j.Answer, "then <")) {
			s.t.Errorf("%s is %s (%s), ended %d times, %d steps: %q", j.Title, j.State, j.Reason, ends, j.StepsDone, j.Answer)
		}
	}
	for title, id := range s.taken {
		if !found[title] {
			s.t.Errorf("%s was acknowledged as %d, and is gone", title, id)
		}
	}
}

// checkInterrupted looks whether what was interrupted ran again soon after the next start.
func (s *storm) checkInterrupted(all []endedJob) {
	var waits []time.Duration
	interrupted, late := 0, 0
	for _, j := range all {
		for i, e := range j.Timeline {
			if e.From != jobs.Running || e.To != jobs.Queued || i+1 == len(j.Timeline) {
				continue
			}
			interrupted++
			start := s.lives[0]
			for _, l := range s.lives {
				if l.launched.Before(e.At.Add(time.Millisecond)) {
					start = l
				}
			}
			again := j.Timeline[i+1]
			killed := start.page.IsZero() // once more before it could run
			for _, l := range s.lives {
				killed = killed || l.launched.After(start.launched) && l.launched.Before(again.At)
			}
			if killed {
				continue
			}
			wait := max(again.At.Sub(start.page), 0)
			if waits = append(waits, wait); wait > longAgain {
				late++
				s.t.Errorf("%s was interrupted and ran again only %s after the page was there", j.Title, wait)
			}
		}
	}
	if interrupted < leastInterrupted || len(waits) == 0 {
		s.t.Fatalf("only %d jobs were interrupted, %d of them ran again before the next kill: at least %d and 1 are wanted", interrupted, len(waits), leastInterrupted)
	}
	slices.Sort(waits)
	s.t.Logf("%d times a job was interrupted; it ran again %s after the page was there (median; at most %s), %d times late", interrupted, waits[len(waits)/2], waits[len(waits)-1], late)
	if waits[len(waits)/2] > takenUpAgain {
		s.t.Errorf("interrupted jobs run again only %s after the page is there", waits[len(waits)/2])
	}
}

// checkBooks compares the ledger with what the provider saw, model by model.
func (s *storm) checkBooks(up *upstream) {
	ctx := context.Background()
	d, err := db.OpenRead(ctx, filepath.Join(s.dir, db.Name))
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	rows, err := usage.Recent(ctx, d, 1_000_000)
	if err != nil {
		s.t.Fatal(err)
	}
	began, ended := map[string]int{}, map[string]int{}
	outcomes := map[usage.Outcome]int{}
	for _, row := range rows {
		outcomes[row.Outcome]++
		began[row.Model]++
		if row.Outcome != usage.Interrupted { // who died may have died before the first byte
			ended[row.Model]++
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	total := 0
	for model, n := range up.asked {
		total += n
		if began[model] < n || ended[model] > n {
			s.t.Errorf("the provider was asked for %s %d times; the ledger has %d rows, %d of them ended", model, n, began[model], ended[model])
		}
	}
	for model, n := range ended {
		if up.asked[model] == 0 {
			s.t.Errorf("the ledger has %d ended rows of %s, for which nobody was asked", n, model)
		}
	}
	if outcomes[usage.Unfinished] > 0 {
		s.t.Errorf("%d rows are open", outcomes[usage.Unfinished])
	}
	s.t.Logf("the provider was asked %d times, and refused for its limit %d times; the ledger: %v", total, len(up.refused), outcomes)
	// A refusal that could have been avoided is one a window at most, of each model's limit.
	windows := (int(time.Since(s.lives[0].launched)/time.Minute) + 1) * stormModels
	if len(up.refused) > windows {
		s.t.Errorf("%d refusals in %d windows", len(up.refused), windows)
	}
}

// The first start makes the database: our migrations, and the engine's. Wherever it is killed, the next start goes on, and works.
func TestAFirstStartThatWasKilledIsGoneOnWith(t *testing.T) {
	random := rand.New(rand.NewPCG(stormSeed, 2))
	killed := 0
	for range 40 {
		s := &storm{taken: map[string]int64{}, random: random}
		s.runner = newRunner(t, "{}")
		s.under = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + writing,
			"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", writing, 1+random.IntN(500))}
		s.launch()
		s.work(0, 0)
		if s.killedByItself() {
			killed++
		}
		s.under = nil
		s.start()
		s.kill()
		d, err := db.OpenRead(t.Context(), filepath.Join(s.dir, db.Name))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Check(t.Context()); err != nil {
			t.Error(err)
		}
		d.Close()
	}
	t.Logf("killed %d times before the page was there", killed)
	if killed < 20 {
		t.Errorf("only %d of 40 starts were killed: the calls are counted wrongly", killed)
	}
}
