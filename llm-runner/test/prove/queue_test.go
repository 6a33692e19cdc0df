//go:build prove

package prove

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
)

// The promises of a long queue.
const (
	longQueue    = 10_000
	longStart    = 500 * time.Millisecond // of a processor, to the page; and at most mostWait
	manyHeld     = 1000
	mostHeldLoad = 0.03 // of a processor, above what the program takes when nothing is held
)

// hand submits n jobs, several at a time.
func (r *runner) hand(n int, spec jobs.Spec) {
	r.t.Helper()
	body, err := json.Marshal(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	var left sync.Mutex
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for {
				left.Lock()
				n--
				last := n < 0
				left.Unlock()
				if last {
					return
				}
				resp, err := http.Post(r.url+"/api/jobs", "application/json", bytes.NewReader(body))
				if err != nil {
					r.t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					r.t.Errorf("a job was answered %s", resp.Status)
					return
				}
			}
		})
	}
	done.Wait()
}

// counts is how many jobs there are in each state.
func (r *runner) counts() (all map[jobs.State]int, err error) {
	var told struct{ Counts map[jobs.State]int }
	err = r.get("/api/jobs?limit=1", &told)
	return told.Counts, err
}

func TestALongQueueDoesNotDelayTheStart(t *testing.T) {
	stop := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		select { // nobody is answered, so the jobs stay in line
		case <-stop:
		case <-req.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(stop)
	r := newRunner(t, fmt.Sprintf("providers:\n  slow: {kind: openai, url: %s/v1, timeout: 10m}\nroutes:\n  default: {provider: slow, model: m}\n", silent.URL))
	r.start()
	r.hand(longQueue, jobs.Spec{Prompt: "wait"})
	all, err := r.counts()
	if err != nil || all[jobs.Queued] < longQueue-100 {
		t.Fatalf("%v, %v", all, err)
	}
	var took, worked []time.Duration
	for range 3 {
		r.kill()
		took = append(took, r.start())
		worked = append(worked, r.worked())
	}
	t.Logf("with %d jobs in line the page is there after %v, with %v of a processor", all[jobs.Queued], took, worked)
	if best := slices.Min(worked); best > longStart {
		t.Errorf("the start takes %s of a processor, more than %s", best, longStart)
	}
	if best := slices.Min(took); best > mostWait {
		t.Errorf("the start takes %s, more than %s", best, mostWait)
	}
	if now, err := r.counts(); err != nil || now[jobs.Queued]+now[jobs.Running] != longQueue {
		t.Errorf("%v, %v", now, err)
	}
}

func TestAThousandHeldJobsCostNothing(t *testing.T) {
	r := newRunner(t, fmt.Sprintf(routes, nobody(t), nobody(t)))
	r.start()
	r.waitStatus("davas", "down")
	before := r.load(5 * time.Second)
	r.hand(manyHeld, jobs.Spec{Prompt: "wait", Model: "gemma4"})
	if err := poll(time.Minute, 100*time.Millisecond, func() error {
		if all, err := r.counts(); err != nil || all[jobs.Held] != manyHeld {
			return fmt.Errorf("%v, %w", all, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	with := 1.0
	for range 5 { // it comes to rest a while after the last of them was held
		if with = min(with, r.load(5*time.Second)); with <= before+mostHeldLoad {
			break
		}
	}
	t.Logf("%.2f %% of a processor when nothing is held, %.2f %% with %d held jobs, %.1f MiB resident", 100*before, 100*with, manyHeld, float64(r.resident())/(1<<20))
	if with > before+mostHeldLoad {
		t.Errorf("%d held jobs take %.2f %% of a processor", manyHeld, 100*(with-before))
	}
}

// load is the share of a processor that the process takes over a while.
func (r *runner) load(while time.Duration) float64 {
	r.t.Helper()
	from, began := r.worked(), time.Now()
	time.Sleep(while) // it is measured what happens in this time
	return float64(r.worked()-from) / float64(time.Since(began))
}

// worked is the processor time that the process has taken, in ticks of 10 ms (utime and stime in proc_pid_stat(5)).
func (r *runner) worked() time.Duration {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.process.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		r.t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
