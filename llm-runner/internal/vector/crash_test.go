package vector

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashDir names the folder in which a child process works until it is killed.
const crashDir = "VECTOR_CRASH_DIR"

// fromVersion returns a document all of whose points tell its name and version: their ids, and their vectors.
func fromVersion(name, version int) Entry {
	e := Entry{Document: Document{Name: strconv.Itoa(name), Version: strconv.Itoa(version)}}
	for i := range 1 + (name+version)%5 {
		v := make([]float32, 32)
		v[name], v[16+version%16], v[i] = v[name]+4, v[16+version%16]+2, v[i]+1
		e.Points = append(e.Points, Point{ID: uint64(name)<<40 | uint64(version)<<8 | uint64(i), Vector: v})
	}
	return e
}

var crashStamp = Stamp{Model: "m", Dimensions: 32}

// TestCrashChild is the process that is killed: it replaces, deletes, saves and compacts for ever, and tells of every
// document that it was told is stored.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only as a child")
	}
	x, err := Open(dir, crashStamp)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for version := int(time.Now().UnixMilli() % 1e9); ; version++ {
		name := r.IntN(16)
		if err := x.Replace(context.Background(), fromVersion(name, version)); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("stored %d %d\n", name, version)
		switch {
		case version%40 == 0:
			err = x.Compact(context.Background())
		case version%15 == 0:
			err = x.Save(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// kills is how often; 200 in make prove.
var kills = 10

// TestKilledAtAnyMoment kills the process that writes an index, again and again in the same folder: what it had acknowledged
// is there, every document is whole and of one version, and nothing was damaged.
func TestKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	for kill := range kills {
		last := runAndKill(t, dir, time.Duration(r.IntN(40_000))*time.Microsecond)
		x, err := Open(dir, crashStamp)
		if err != nil {
			t.Fatal(kill, err)
		}
		if strings.Contains(x.Healed, "floats") {
			t.Fatal(kill, x.Healed) // the death of a process tears at most the last record
		}
		checkWhole(t, x, last)
		x.discard()
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) > 3 {
		t.Error("left behind:", files)
	}
}

// runAndKill starts a child in dir, kills it some time after its first word, and returns the versions that it told of last.
func runAndKill(t *testing.T, dir string, after time.Duration) map[string]int {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	c.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait() //nolint:errcheck // it was killed
	limit := time.AfterFunc(30*time.Second, func() { c.Process.Kill() })
	defer limit.Stop()
	last, told := map[string]int{}, 0
	for in := bufio.NewScanner(out); in.Scan(); {
		f := strings.Fields(in.Text())
		if len(f) != 3 || f[0] != "stored" {
			continue
		}
		if told++; told == 1 {
			defer time.AfterFunc(after, func() { c.Process.Kill() }).Stop()
		}
		last[f[1]], _ = strconv.Atoi(f[2])
	}
	if told == 0 {
		t.Fatal("the child stored nothing")
	}
	return last
}

func checkWhole(t *testing.T, x *Index, last map[string]int) {
	t.Helper()
	docs, err := x.Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, d := range docs {
		have[d.Name], _ = strconv.Atoi(d.Version)
	}
	for name, version := range last {
		if have[name] < version { // it may have stored one more than it could tell of
			t.Errorf("document %s is of version %d, and %d was acknowledged", name, have[name], version)
		}
	}
	q := make([]float32, 32)
	q[0] = 1
	hits, err := x.Query(t.Context(), Query{Vector: q, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	points := map[string]int{}
	for _, h := range hits {
		points[h.Document]++
		if v := int(h.ID >> 8 & 0xffffffff); v != have[h.Document] || strconv.FormatUint(h.ID>>40, 10) != h.Document {
			t.Errorf("point %x of %s, which is of version %d", h.ID, h.Document, have[h.Document])
		}
		name, _ := strconv.Atoi(h.Document)
		want := dot(Unit(q), appendFloats(nil, Unit(fromVersion(name, have[h.Document]).Points[h.ID&0xff].Vector)))
		if h.Score != want {
			t.Errorf("point %x has the score %v, not %v", h.ID, h.Score, want)
		}
	}
	for name, version := range have {
		n, _ := strconv.Atoi(name)
		if points[name] != len(fromVersion(n, version).Points) {
			t.Errorf("document %s of version %d has %d points", name, version, points[name])
		}
	}
	if damaged, err := x.Check(t.Context()); len(damaged) > 0 || err != nil {
		t.Error(damaged, err)
	}
}
