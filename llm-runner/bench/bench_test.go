package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A measurement counts only what is complete, so the checks must see everything that is not.
func TestIncompleteAnswersAreSeen(t *testing.T) {
	stream := ""
	for _, e := range streamEvents {
		stream += string(e)
	}
	whole := stream + string(usageEvent) + string(lastEvent)
	for name, tt := range map[string]struct {
		body string
		ok   bool
	}{
		"complete":             {whole, true},
		"without usage":        {stream + string(lastEvent), true},
		"rendered differently": {strings.ReplaceAll(strings.ReplaceAll(whole, `":"`, `": "`), "data: ", "data:"), true},
		"with comments":        {": ping\n\n" + whole, true},
		"without its end":      {stream, false},
		"cut off":              {whole[:len(whole)/2], false},
		"a piece missing":      {strings.Replace(whole, string(streamEvents[7]), "", 1), false},
		"a piece twice":        {strings.Replace(whole, string(streamEvents[7]), string(streamEvents[7])+string(streamEvents[7]), 1), false},
		"no reason of its end": {strings.Replace(whole, `"stop"`, "null", 1), false},
		"an error":             {`data: {"error":{"message":"no"}}` + "\n\n", false},
		"nothing":              {"", false},
	} {
		if err := checkStream([]byte(tt.body)); (err == nil) != tt.ok {
			t.Errorf("stream, %s: %v", name, err)
		}
	}
	reply := string(wholeReply)
	for name, tt := range map[string]struct {
		body string
		ok   bool
	}{
		"complete":      {reply, true},
		"cut off":       {reply[:len(reply)-1], false},
		"another text":  {strings.Replace(reply, "well made", "made well", 1), false},
		"without usage": {strings.Replace(reply, "104", "0", 1), false},
		"nothing":       {"", false},
	} {
		if err := checkWhole([]byte(tt.body)); (err == nil) != tt.ok {
			t.Errorf("JSON, %s: %v", name, err)
		}
	}
}

// The upstream and the yardstick answer completely, and what goes wrong is counted and does not stop the load.
func TestLoad(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(upstream))
	defer up.Close()
	to, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	between := httptest.NewServer(proxy(to))
	defer between.Close()
	var n atomic.Int64
	faulty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		upstream(w, r)
	}))
	defer faulty.Close()

	for name, tt := range map[string]struct {
		url         string
		concurrency int
		broken      int
	}{
		"direct": {up.URL, 4, 0}, "proxy": {between.URL, 4, 0}, "faulty": {faulty.URL, 1, 20},
	} {
		for _, stream := range []bool{false, true} {
			c := &contestant{address: strings.TrimPrefix(tt.url, "http://"), path: chatPath}
			s := workload{stream: stream, concurrency: tt.concurrency, requests: 40, limit: 10 * time.Second}.run(c)
			if s.broken != tt.broken || len(s.whole) != 40-tt.broken || (s.problem != nil) != (tt.broken > 0) {
				t.Errorf("%s, stream %v: %d answers, %d broken: %v", name, stream, len(s.whole), s.broken, s.problem)
			}
		}
	}
}

func TestQuantilesAndMedians(t *testing.T) {
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(i+1)*time.Microsecond)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.99: 99, 1: 100, 0: 1} {
		if got := quantile(times, q); got != want {
			t.Errorf("quantile %v of 1..100: %v", q, got)
		}
	}
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median of %v: %v", tt.values, got)
		}
	}
}

// What is added is compared within each round, so that a machine that slows down between rounds does not count.
func TestContestantsAreComparedRoundByRound(t *testing.T) {
	of := func(medians ...float64) *entry {
		x := &entry{Slices: map[string][]slice{}}
		for _, m := range medians {
			x.Slices[oneJSON.name] = append(x.Slices[oneJSON.name], slice{Median: m})
		}
		return x
	}
	if got := of(150, 350, 1250).surplus(of(50, 200, 1100), oneJSON, whole); got != 150 {
		t.Errorf("added %v", got)
	}
	if got := of(50, 300, 900).against(of(100, 400, 1000), oneJSON, whole); got != 0.75 {
		t.Errorf("ratio %v", got)
	}
}

func TestTableIsReplaced(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "bench.md")
	if err := os.WriteFile(doc, []byte("# Title\n"+beginMarker+"\nold\n"+endMarker+"\nrest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := replaceTable(doc, "new"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if want := "# Title\n" + beginMarker + "\n\nnew\n" + endMarker + "\nrest\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(doc, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if replaceTable(doc, "new") == nil {
		t.Error("a document without markers was taken")
	}
}

// One that cannot start is told of in the report; the others are measured.
func TestAbsentContestantIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	b := &bench{dir: t.TempDir()}
	defer b.stop()
	_, err := b.enter(context.Background(), entrant{"ghost", func(context.Context, *bench, string) (*contestant, error) {
		p, err := launch(b.dir, "ghost", nil, "sh", "-c", "echo no such luck; exit 3")
		return &contestant{process: p}, err
	}})
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Fatalf("%v", err)
	}
	r := &result{Entries: []*entry{
		{Name: "direct", Slices: map[string][]slice{}},
		{Name: "ghost", Absent: fmt.Sprint(err)},
	}}
	if got := r.markdown(); !strings.Contains(got, "ghost did not take part: it ended at once: no such luck.") {
		t.Errorf("%s", got)
	}
}
