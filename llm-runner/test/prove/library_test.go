//go:build prove

package prove

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/library"
)

// An embedder answers POST /v1/embeddings as OpenAI's interface does, with vectors that follow from the words of a text.
type embedder struct {
	url   string
	texts atomic.Int64
	away  atomic.Bool
}

const embedDimensions = 768

func newEmbedder(t *testing.T) *embedder {
	t.Helper()
	e := &embedder{}
	r := rand.New(rand.NewPCG(1, 2))
	table := make([]float32, 1<<16+embedDimensions)
	for i := range table {
		table[i] = float32(r.NormFloat64())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"nomic-embed-text","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, req *http.Request) {
		if e.away.Load() {
			http.Error(w, `{"error":{"message":"loading the model"}}`, http.StatusServiceUnavailable)
			return
		}
		var ask struct{ Input []string }
		if err := json.NewDecoder(req.Body).Decode(&ask); err != nil {
			http.Error(w, `{"error":{"message":"no JSON"}}`, http.StatusBadRequest)
			return
		}
		e.texts.Add(int64(len(ask.Input)))
		fmt.Fprint(w, `{"object":"list","model":"nomic-embed-text","usage":{"prompt_tokens":1,"total_tokens":1},"data":[`)
		for i, text := range ask.Input {
			v, raw := make([]float32, embedDimensions), []byte(nil)
			for word := range strings.FieldsSeq(text) {
				h := fnv.New32a()
				h.Write([]byte(word)) //nolint:errcheck // a hash has no errors
				at := h.Sum32() & (1<<16 - 1)
				for j := range v {
					v[j] += table[int(at)+j]
				}
			}
			for _, x := range v {
				b := math.Float32bits(x)
				raw = append(raw, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
			}
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"object":"embedding","index":%d,"embedding":"%s"}`, i, base64.StdEncoding.EncodeToString(raw))
		}
		fmt.Fprint(w, `]}`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	e.url = s.URL + "/v1"
	return e
}

// madeUp is the n-th of many words that look like some.
func madeUp(n uint64) string {
	var b []byte
	for n = n*2654435761%(1<<20) + 1<<20; n > 1; n /= 90 {
		b = append(b, "bcdfghklmnprstvwzj"[n%18], "aeiou"[n/18%5])
	}
	return string(b)
}

// bigVault writes notes of ten passages each, of made-up words whose use falls as in language: few are common, most are rare.
func bigVault(t *testing.T, notes int) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	words := rand.NewZipf(r, 1.1, 20, 60_000)
	for n := range notes {
		var b strings.Builder
		fmt.Fprintf(&b, "# Note %d about %s\n", n, madeUp(words.Uint64()))
		for p := range 10 {
			fmt.Fprintf(&b, "\n## Part %d\n\n", p)
			for range 160 {
				b.WriteString(madeUp(words.Uint64()) + " ")
			}
			fmt.Fprintln(&b)
		}
		at := filepath.Join(dir, fmt.Sprintf("f%02d", n%50))
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("note-%d.md", n)), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The promises for 10,000 notes of ten passages; what grows with the notes is promised in proportion.
const (
	bigNotes   = 10_000
	mostAtRest = 120 << 20
	mostAtWork = 300 << 20
)

// TestALargeLibraryFitsASmallMachine indexes and embeds a library, and looks at the memory that takes. LIBRARY_NOTES=10000 is what
// docs/bench.md tells of; make prove has fewer.
func TestALargeLibraryFitsASmallMachine(t *testing.T) {
	notes := 1000
	if n, err := strconv.Atoi(os.Getenv("LIBRARY_NOTES")); err == nil {
		notes = n
	}
	e, dir := newEmbedder(t), bigVault(t, notes)
	r := newRunner(t, fmt.Sprintf("vault: {path: %q, jobs: false}\nproviders:\n  small: {kind: openai, url: %q, health: /models}\nlibrary: {embed: small/nomic-embed-text}\n", dir, e.url))
	began := time.Now()
	r.start()
	most, indexed := 0, time.Duration(0)
	err := poll(20*time.Minute, 100*time.Millisecond, func() error {
		most = max(most, r.resident())
		var s library.Status
		if err := r.get("/api/library", &s); err != nil {
			return err
		}
		if indexed == 0 && !s.Synced.IsZero() {
			indexed = time.Since(began)
			t.Logf("words after %v, %.0f MB resident at most", indexed.Round(time.Millisecond), float64(most)/(1<<20))
		}
		if s.Meaning.State != library.MeaningReady || s.Meaning.Of != notes {
			return fmt.Errorf("%+v", s.Meaning)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d notes: words after %v, vectors after %v, at most %.0f MB resident", notes, indexed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), float64(most)/(1<<20))
	after := r.rest()
	times := r.searches(200)
	searched := r.rest()
	r.quit()
	made := e.texts.Load()
	began = time.Now()
	r.start()
	opened := time.Since(began)
	r.searches(20)
	restarted := r.rest()
	t.Logf("at rest after the first index %.0f MB, after 200 searches %.0f MB, after a new start (page in %v) %.0f MB; a search %v, 95th percentile %v; %d texts embedded, %d at the new start, its 20 questions included",
		mb(after), mb(searched), opened.Round(time.Millisecond), mb(restarted), times[len(times)/2], times[len(times)*95/100], made, e.texts.Load()-made)
	if e.texts.Load() > made+20 { // the questions
		t.Errorf("a new start had %d texts embedded", e.texts.Load()-made)
	}
	// What a few notes take is mostly what the program takes, and some of what a first index took.
	share := func(all int) int { return min(all, mostIdle+70<<20+all*notes/bigNotes) }
	if worst := max(after, searched, restarted); worst > share(mostAtRest) {
		t.Errorf("%.0f MB at rest, more than %.0f", mb(worst), mb(share(mostAtRest)))
	}
	if most > mostAtWork {
		t.Errorf("%.0f MB at work, more than %.0f", mb(most), mb(mostAtWork))
	}
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

// rest returns what is resident once it has been the same for a while.
func (r *runner) rest() int {
	r.t.Helper()
	last, same := 0, 0
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end) && same < 20; time.Sleep(500 * time.Millisecond) {
		now := r.resident()
		if d := now - last; d > -1<<20 && d < 1<<20 {
			same++
		} else {
			same = 0
		}
		last = now
	}
	return last
}

// quit ends the process as an operator does.
func (r *runner) quit() {
	r.t.Helper()
	if err := r.process.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		r.t.Fatal("it does not stop")
	}
}

// searches asks n questions through the API and returns how long each took, the fastest first.
func (r *runner) searches(n int) []time.Duration {
	r.t.Helper()
	rnd := rand.New(rand.NewPCG(3, 3))
	words := rand.NewZipf(rnd, 1.1, 20, 60_000)
	var all []time.Duration
	late := 0 // a question whose vector is not there in a second is answered from the words alone
	for len(all) < n {
		var q []string
		for range 4 {
			q = append(q, madeUp(words.Uint64()))
		}
		began := time.Now()
		var found library.Shown
		if err := r.get("/api/library/search?"+url.Values{"q": {strings.Join(q, " ")}}.Encode(), &found); err != nil {
			r.t.Fatal(err)
		}
		took := time.Since(began)
		if len(found.Lanes) != 2 || found.Lanes[1].Found == 0 {
			if late++; took < time.Second || late > 10 {
				r.t.Fatalf("lanes %+v after %s", found.Lanes, took)
			}
			continue
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return all
}
