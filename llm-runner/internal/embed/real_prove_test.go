//go:build prove

package embed_test

import (
	"bufio"
	"context"
	"math"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/test/ollama/ollamatest"
)

// model starts a real small model (all-MiniLM-L6-v2, llm-runner/test/minilm) and returns where it answers. It is ended by its
// process id when the test ends.
func model(t *testing.T) string {
	t.Helper()
	c := exec.Command("../../test/minilm/serve.sh", "--listen", "127.0.0.1:0")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	c.Stderr = &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	limit := time.AfterFunc(10*time.Minute, end) // where it has to be installed first
	t.Cleanup(func() {
		limit.Stop()
		end()
		c.Wait()
	})
	for in := bufio.NewScanner(out); in.Scan(); {
		if _, rest, ok := strings.Cut(in.Text(), "minilm on "); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("the model did not start: %s", said.String())
	return ""
}

// Notes, and for each a question that shares hardly a word with it.
var notes = [][2]string{
	{"The plumber replaced the leaking valve under the kitchen sink.", "Who fixed the pipe that dripped?"},
	{"Our flight to Lisbon leaves at seven in the morning.", "When does the plane to Portugal take off?"},
	{"Water the tomatoes twice a week, more often in a heat wave.", "How frequently do the vegetables need to be irrigated?"},
	{"The dentist appointment was moved to the third of May.", "On which day do I have my teeth checked?"},
	{"Grandmother's apple pie needs a pinch of cinnamon and cold butter.", "What spice goes into the family's dessert recipe?"},
	{"The database is copied to the other machine every night.", "How often is the data backed up?"},
	{"The landlord raises the rent by forty euros in autumn.", "How much more will the apartment cost?"},
	{"Our daughter passed her driving test at the second attempt.", "Did she get her licence to drive a car?"},
	{"The car's winter tyres are stored in the cellar.", "Where are the wheels for snow?"},
	{"The choir rehearses the requiem on Thursday evenings.", "When does the singing group practise?"},
	{"A subscription to the newspaper can be cancelled at any time.", "Am I bound to keep paying for the daily press?"},
	{"The cat must take half a tablet with its food.", "What medicine does the pet get?"},
}

// TestARealModelFindsWhatIsMeant goes all the way: a real model behind OpenAI's interface, the provider, the cache, the index.
func TestARealModelFindsWhatIsMeant(t *testing.T) {
	up := openai.New(openai.Config{URL: model(t)})
	e := embed.New(database(t), up, embed.Config{Model: "all-minilm"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	stamp, err := e.Stamp(ctx)
	if err != nil || stamp.Dimensions != 384 {
		t.Fatal(stamp, err)
	}
	store := vector.NewLocal(t.TempDir())
	defer store.Close()
	c, err := store.Build(ctx, "vault", stamp)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, n := range notes {
		texts = append(texts, n[0])
	}
	vectors, err := e.Documents(ctx, texts)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range vectors {
		err := c.Replace(ctx, vector.Entry{Document: vector.Document{Name: texts[i]}, Points: []vector.Point{{ID: uint64(i), Vector: v.Values}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	right := 0
	for i, n := range notes {
		q, err := e.Query(ctx, n[1])
		if err != nil {
			t.Fatal(err)
		}
		hits, err := c.Query(ctx, vector.Query{Vector: q.Values, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if hits[0].ID == uint64(i) {
			right++
		} else {
			t.Logf("%q found %q", n[1], hits[0].Document)
		}
	}
	if right < len(notes)-1 {
		t.Errorf("%d of %d questions found their note", right, len(notes))
	}
	// What the model's makers show for these two sentences (huggingface.co/sentence-transformers/all-MiniLM-L6-v2).
	pair, err := e.Documents(ctx, []string{"That is a happy person", "That is a very happy person"})
	if err != nil {
		t.Fatal(err)
	}
	var cosine float64
	for i, x := range pair[0].Values {
		cosine += float64(x) * float64(pair[1].Values[i])
	}
	if math.Abs(cosine-0.943) > 0.002 {
		t.Errorf("the cosine is %.4f, not 0.943: the model is not computed as its makers do", cosine)
	}
	long := strings.Repeat("A sentence of seven words stands here. ", 100)
	v, err := e.Documents(ctx, []string{long})
	if err != nil || v[0].Covers >= len(long) || v[0].Covers < len(long)/3 || e.Status().Cut != 1 {
		t.Errorf("%d of %d bytes, %+v, %v", v[0].Covers, len(long), e.Status(), err)
	}
}

// TestARealOllamaDoesNotCutSilently sends a text that is longer than the tiny model reads.
func TestARealOllamaDoesNotCutSilently(t *testing.T) {
	s := ollamatest.Start(t)
	up := ollama.New(ollama.Config{URL: s.URL})
	defer up.CloseIdle()
	e := embed.New(database(t), up, embed.Config{Model: "tiny-embed"})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	long := strings.Repeat("bake bread in the oven ", 2000)
	v, err := e.Documents(ctx, []string{"restore the server", long, "bread"})
	if err != nil {
		t.Fatal(err)
	}
	if v[0].Covers != len("restore the server") || v[1].Covers >= len(long) || v[1].Covers < 500 || e.Status().Cut != 1 {
		t.Errorf("%d of %d bytes are covered; %+v", v[1].Covers, len(long), e.Status())
	}
}
