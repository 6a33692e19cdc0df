//go:build prove

package prove

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The promises to a small machine.
const (
	mostStart  = 300 * time.Millisecond // from the start of the process to its page
	mostIdle   = 40 << 20               // bytes resident
	mostBinary = 40 << 20               // bytes on disk
)

// The page is there at once, although every provider is dead: one refuses, one never says a word.
func TestStartsAtOnceWithDeadProviders(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections are taken by the kernel, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var took []time.Duration
	for range 5 {
		r := newRunner(t, fmt.Sprintf(routes, "http://"+silent.Addr().String(), nobody(t))) // a new data directory each time
		took = append(took, r.start())
		r.kill()
	}
	slices.Sort(took)
	t.Logf("page after %v", took)
	if median := took[len(took)/2]; median > mostStart {
		t.Errorf("the page takes %v, more than %v", median, mostStart)
	}
}

func TestIdlesInLittleMemory(t *testing.T) {
	r := newRunner(t, fmt.Sprintf(routes, nobody(t), nobody(t)))
	r.start()
	r.waitStatus("davas", "down", 5*time.Second)
	most := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		most = max(most, r.resident())
	}
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
