//go:build prove

package prove

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
)

// The promises to a small machine.
const (
	mostStart  = 400 * time.Millisecond // of a processor, from the start of the process to its page
	mostWait   = 3 * time.Second        // to the page, on a machine that others want, too; who waits for a dead provider waits longer
	mostIdle   = 40 << 20               // bytes resident
	mostBinary = 40 << 20               // bytes on disk

	mostResearch    = 10        // runs at once
	laneOfJobs      = 8         // jobs of them
	mostResearching = 200 << 20 // bytes resident meanwhile
)

// The page is there at once, although every provider is dead: one refuses, one never says a word.
func TestStartsAtOnceWithDeadProviders(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections are taken by the kernel, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var took, worked []time.Duration
	for range 5 {
		r := newRunner(t, fmt.Sprintf(routes, "http://"+silent.Addr().String(), nobody(t))) // a new data directory each time
		took = append(took, r.start())
		worked = append(worked, r.worked())
		r.kill()
	}
	t.Logf("page after %v, with %v of a processor", took, worked)
	if best := slices.Min(worked); best > mostStart {
		t.Errorf("the page takes %v of a processor, more than %v", best, mostStart)
	}
	if best := slices.Min(took); best > mostWait {
		t.Errorf("the page takes %v, more than %v", best, mostWait)
	}
}

func TestIdlesInLittleMemory(t *testing.T) {
	r := newRunner(t, fmt.Sprintf(routes, nobody(t), nobody(t)))
	r.start()
	r.waitStatus("davas", "down")
	// What the start needed goes back once the program has come to rest: then it stays small.
	window := func() int { // the median of two seconds
		var all []int
		for range 20 {
			all = append(all, r.resident())
			time.Sleep(100 * time.Millisecond)
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	for range 5 {
		if window() <= mostIdle {
			break
		}
	}
	most := max(window(), window()) // and it does not grow again
	t.Logf("%.1f MiB resident", float64(most)/(1<<20))
	if most > mostIdle {
		t.Errorf("%d bytes resident, more than %d", most, mostIdle)
	}
}

// resident is the process's memory in bytes (VmRSS in proc_pid_status(5)).
func (r *runner) resident() int {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.process.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return kb << 10
}

// Ten runs of research at once, with notes, a web of long pages and reports, against a provider with recorded words.
func TestTenRunsOfResearchInLittleMemory(t *testing.T) {
	words := newWordsmith(t)
	words.slow = 200 * time.Millisecond // so that they are at work at the same time
	var more strings.Builder            // as long as the longest articles on the web are
	for n := 1; more.Len() < 500_000; n++ {
		fmt.Fprintf(&more, "<h2>Winter day %[1]d</h2><p>On day %[1]d of that winter the laboratory wrote down %[2]d readings, of which sensor %[3]d had the lowest. Nobody changed the <a href=\"/day/%[1]d\">valves</a> before noon.</p>", n, n*37%911, n%13)
	}
	searxng, _ := smallWeb(t, more.String())
	vault := researchVault(t)
	r := newRunner(t, strings.Replace(fmt.Sprintf(researchConfig, vault, searxng, nobody(t), words.url), "contabo/tiny-embed", "none", 1))
	r.start()
	began := time.Now()
	const question = "How loud is the Kestrel heat pump, and which refrigerant does it have?"
	var programs sync.WaitGroup
	defer programs.Wait()
	for range mostResearch - laneOfJobs { // jobs of one lane are eight at a time; programs do not stand in that line
		programs.Go(func() {
			resp, err := http.Post(r.url+"/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"model": "research", "messages": [{"role": "user", "content": %q}]}`, question)))
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%v, %v", resp, err)
				return
			}
			resp.Body.Close()
		})
	}
	r.hand(laneOfJobs, jobs.Spec{Type: jobs.Research, Prompt: question})
	most, together := 0, 0
	err := poll(60*time.Second, 20*time.Millisecond, func() error {
		most = max(most, r.resident())
		var all struct{ Runs []graph.RunRow }
		if err := r.get("/api/runs", &all); err != nil {
			return err
		}
		done, running := 0, 0
		for _, run := range all.Runs {
			if run.Status == graph.Done {
				done++
			}
			if run.Status == graph.Running {
				running++
			}
		}
		together = max(together, running)
		if done < mostResearch {
			return fmt.Errorf("%d of %d runs are done", done, mostResearch)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d runs, %d at a time, in %s, %d questions to models, at most %.1f MiB resident", mostResearch, together, time.Since(began).Round(100*time.Millisecond), words.asked.Load(), float64(most)/(1<<20))
	if together < mostResearch {
		t.Errorf("only %d runs were at work at a time", together)
	}
	if most > mostResearching {
		t.Errorf("%d bytes resident, more than %d", most, mostResearching)
	}
}

func TestBinaryIsSmall(t *testing.T) {
	st, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MiB", float64(st.Size())/(1<<20))
	if st.Size() > mostBinary {
		t.Errorf("%d bytes, more than %d", st.Size(), mostBinary)
	}
}
