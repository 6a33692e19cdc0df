//go:build prove

package prove

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// Nobody can cut the power of the machine that tests, so the kernel is asked what the program told it: the database's log is
// brought to the disk between the request for a job and the answer that it is taken, each time.
func TestAJobThatIsTakenOutlastsAPowerCut(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is missing: llm-runner/test/setup.sh installs it")
	}
	r := newRunner(t, "{}")
	calls := filepath.Join(r.dir, "calls")
	r.under = []string{"strace", "-f", "--seccomp-bpf", "-qq", "-y", "-o", calls, "-e", "trace=read,write,fsync,fdatasync"}
	r.start()
	const jobs = 5
	// A connection that is used again can be read a byte early: then no line has the whole word POST.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range jobs {
		resp, err := client.Post(r.url+"/api/jobs", "application/json", strings.NewReader(fmt.Sprintf(`{"prompt": "number %d"}`, i)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatal(resp.Status)
		}
	}
	var text []byte
	err := poll(30*time.Second, 20*time.Millisecond, func() (err error) { // the client knows of an answer before its line is written
		if text, err = os.ReadFile(calls); err == nil && strings.Count(string(text), `"HTTP/1.1 202 `) < jobs {
			err = errors.New("the kernel saw fewer answers than were given")
		}
		return err
	})
	r.kill()
	if err != nil {
		t.Error(err)
	}
	synced := regexp.MustCompile(`(fsync|fdatasync)(\(\d+<[^>]*` + regexp.QuoteMeta(db.Name) + `-wal>| resumed)[^\n]*= 0`)
	asked, kept, taken := false, false, 0
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.Contains(line, `"POST /api/jobs `):
			asked, kept = true, false
		case synced.MatchString(line):
			kept = true
		case asked && strings.Contains(line, `"HTTP/1.1 202 `):
			if taken++; !kept {
				t.Errorf("job %d was taken before it was on the disk", taken)
			}
			asked = false
		}
	}
	if taken != jobs {
		t.Errorf("the kernel saw %d of %d jobs taken", taken, jobs)
	}
}
