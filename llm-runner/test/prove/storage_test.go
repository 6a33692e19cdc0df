//go:build prove

package prove

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/needs"
)

// A storage is a runner between a faithful provider, which counts what it is asked, and a Discord.
type storage struct {
	*runner
	groq, discord fake
	acknowledged  []int64 // jobs
	asked         int     // calls of /v1 and questions in chats
}

// newStorage starts a runner whose data directory is dir; "" makes one.
func newStorage(t *testing.T, dir, discordScript string) *storage {
	t.Helper()
	s := &storage{groq: newFake(t, "groq", `models: [m]
reply:
  - {match: slow, text: "one two three four five six seven eight", chunk_delay: 100ms}
  - {text: "It is so."}
`), discord: newFake(t, "discord", discordScript)}
	config := fmt.Sprintf(`providers:
  groq: {kind: openai, url: "%s/openai/v1", key: "file:%s"}
routes:
  default: {provider: groq, model: m}
discord:
  webhook: "file:%s"
`, s.groq.url, keyFile(t), secretFile(t, s.discord.url+"/api/webhooks/1/planted-token"))
	s.runner = newRunner(t, config)
	if dir != "" {
		s.dir = dir
		if err := os.WriteFile(filepath.Join(dir, "runner.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	return s
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// send posts JSON and returns status and body.
func (s *storage) send(path, body string) (int, string) {
	s.t.Helper()
	client := &http.Client{Timeout: 60 * time.Second}
	resp, err := client.Post(s.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// job hands one in and returns the status; 202 is remembered.
func (s *storage) job(prompt, more string) (int, string) {
	s.t.Helper()
	status, text := s.send("/api/jobs", fmt.Sprintf(`{"prompt": %q%s}`, prompt, more))
	if status == http.StatusAccepted {
		var j struct{ ID int64 }
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			s.t.Fatal(err)
		}
		s.acknowledged = append(s.acknowledged, j.ID)
	}
	return status, text
}

// call asks as a program does, and says how long that took.
func (s *storage) call() time.Duration {
	s.t.Helper()
	started := time.Now()
	s.asked++
	if status, text := s.send("/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"is it so?"}]}`); status != 200 || !strings.Contains(text, "It is so.") {
		s.t.Errorf("/v1 answers %d: %s", status, text)
	}
	return time.Since(started)
}

// ask asks as a person does, waits for the answer, and returns the conversation.
func (s *storage) ask(chatPath, text string) string {
	s.t.Helper()
	form := url.Values{"text": {text}, "model": {"m"}}
	to := "/chats"
	if chatPath != "" {
		form.Set("parent", fmt.Sprint(s.answer(chatPath).ID))
		to = chatPath + "/messages"
	}
	s.asked++
	conversation := s.post(to, form)
	s.answered(conversation)
	return conversation
}

func (s *storage) answered(conversation string) {
	s.t.Helper()
	if err := poll(30*time.Second, 20*time.Millisecond, func() error {
		if a := s.answer(conversation); a.Turn.State != chat.Finished {
			return fmt.Errorf("the answer is %s: %s", a.Turn.State, a.Turn.Error)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// told is every line that Discord has.
func (s *storage) told() (lines []string) {
	s.t.Helper()
	var all []struct{ Content string }
	if err := s.discord.get("/_fake/messages", &all); err != nil {
		s.t.Fatal(err)
	}
	for _, m := range all {
		lines = append(lines, strings.Split(m.Content, "\n")...)
	}
	return lines
}

func (s *storage) awaitTold(part string) {
	s.t.Helper()
	if err := poll(30*time.Second, 50*time.Millisecond, func() error {
		if !strings.Contains(strings.Join(s.told(), "\n"), part) {
			return fmt.Errorf("Discord was not told %q: %q", part, s.told())
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// settled waits until all that was acknowledged is done and health is well, then compares: the ledger has what the provider
// was asked, and the reverse.
func (s *storage) settled() {
	s.t.Helper()
	if err := poll(60*time.Second, 100*time.Millisecond, func() error {
		var all struct{ Counts map[string]int }
		if err := s.get("/api/jobs?limit=1", &all); err != nil {
			return err
		}
		if all.Counts["done"] != len(s.acknowledged) || len(all.Counts) > 1 {
			return fmt.Errorf("of %d acknowledged jobs: %v", len(s.acknowledged), all.Counts)
		}
		if h := s.health(); h.Status != "ok" {
			return fmt.Errorf("health is %s", h.Status)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	if err := poll(10*time.Second, 100*time.Millisecond, s.balanced); err != nil {
		s.t.Error(err)
	}
}

func (s *storage) balanced() error {
	seen := s.groq.answered()
	d, err := db.OpenRead(context.Background(), filepath.Join(s.dir, db.Name))
	if err != nil {
		return err
	}
	defer d.Close()
	rows, err := usage.Recent(context.Background(), d, 100_000)
	if err != nil {
		return err
	}
	calls := 0
	for _, r := range rows {
		if r.Provider != "groq" {
			continue
		}
		if calls++; r.Outcome == usage.Unfinished {
			return fmt.Errorf("row %d is open", r.ID)
		}
	}
	if calls != seen {
		return fmt.Errorf("the ledger has %d calls, the provider %d", calls, seen)
	}
	return nil
}

// whole checks the database once the process is gone.
func (s *storage) whole() {
	s.t.Helper()
	d, err := db.OpenRead(context.Background(), filepath.Join(s.dir, db.Name))
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	var ok string
	if err := d.Read().QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		s.t.Errorf("integrity_check: %s, %v", ok, err)
	}
}

// mounted is a file system of its own, unmounted with the test.
func mounted(t *testing.T, kind, source, options string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", kind, "-o", options, source, dir).CombinedOutput(); err != nil {
		needs.Missing(t, fmt.Sprintf("only root can mount: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if err := poll(10*time.Second, 50*time.Millisecond, func() error { return syscall.Unmount(dir, 0) }); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// inject has the kernel answer a process's system calls on the database with a fault, by strace, until the returned
// function is called: "pwrite64:error=EROFS", "fdatasync:delay_exit=2000000" (microseconds).
func inject(t *testing.T, s *storage, faults ...string) (end func()) {
	t.Helper()
	args := []string{"-f", "-o", os.DevNull, "-p", fmt.Sprint(s.process.Process.Pid)}
	for _, name := range []string{db.Name, db.Name + "-wal", db.Name + "-shm"} {
		args = append(args, "-P", filepath.Join(s.dir, name))
	}
	for _, f := range faults {
		args = append(args, "-e", "inject="+f)
	}
	p := exec.Command("strace", args...)
	says, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		needs.Missing(t, "strace is missing: apt-get install strace: ", err)
	}
	first := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		lines := bufio.NewScanner(says)
		for lines.Scan() {
			select {
			case first <- lines.Text():
			default:
			}
		}
	}()
	end = sync.OnceFunc(func() {
		p.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended with the process that it watches
		select {
		case <-drained:
		case <-time.After(20 * time.Second):
			p.Process.Kill() //nolint:errcheck // the same
		}
		p.Wait() //nolint:errcheck // "interrupted" is how it ends
	})
	t.Cleanup(end)
	select {
	case line := <-first:
		if !strings.Contains(line, "attached") {
			t.Skipf("this machine does not let strace attach: %s", line)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("strace does not attach")
	}
	return end
}

// Whatever the disk does, answers go on, jobs are taken or refused with the reason, nothing acknowledged is lost, one alert
// is sent, and when it passes all catches up without a restart.
func TestTheDiskRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		dir    func(t *testing.T) string
		begin  func(t *testing.T, s *storage) (end func())
		status int // of a job meanwhile
		says   string
	}{
		{"full", func(t *testing.T) string { return mounted(t, "tmpfs", "tmpfs", "size=16m") },
			func(t *testing.T, s *storage) func() { return fill(t, filepath.Join(s.dir, "ballast")) }, 507, "is full"},
		{"full ext4", loop, func(t *testing.T, s *storage) func() { return fill(t, filepath.Join(s.dir, "ballast")) }, 507, "is full"},
		{"read-only", nil, func(t *testing.T, s *storage) func() {
			return inject(t, s, "pwrite64,write,ftruncate,fallocate,fsync,fdatasync:error=EROFS")
		}, 503, "answers with errors"},
		{"i/o error", nil, func(t *testing.T, s *storage) func() {
			return inject(t, s, "pwrite64,write,ftruncate,fsync,fdatasync:error=EIO")
		}, 503, "answers with errors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := ""
			if tt.dir != nil {
				dir = tt.dir(t)
			}
			s := newStorage(t, dir, "")
			before := s.ask("", "before")
			for i := range 24 {
				if status, text := s.job(fmt.Sprintf("slow %d", i), ""); status != 202 {
					t.Fatalf("%d: %s", status, text)
				}
			}
			s.asked++
			arriving := s.post("/chats", url.Values{"text": {"slow, while it happens"}, "model": {"m"}})
			end := tt.begin(t, s)

			refused := 0
			for i := range 120 { // what the log of the database has room for already is taken
				if status, text := s.job(fmt.Sprintf("meanwhile %d %s", i, strings.Repeat("x", 20_000)), ""); status != 202 {
					refused++
					if status != tt.status || !strings.Contains(text, "so it was not taken") || !strings.Contains(text, "send it again") {
						t.Fatalf("%d: %s", status, text)
					}
				}
			}
			if refused < 30 {
				t.Fatalf("only %d jobs were refused", refused)
			}
			s.answered(arriving)
			for range 20 {
				if took := s.call(); took > 20*time.Second {
					t.Errorf("a call took %s", took)
				}
			}
			fresh := s.ask("", "meanwhile")
			s.ask(fresh, "and again")
			s.ask(before, "goes on")
			var page strings.Builder
			if err := s.page(fresh, &page); err != nil || !strings.Contains(page.String(), "Nothing can be saved") {
				t.Errorf("the page says nothing of it: %v", err)
			}
			s.awaitTold("Nothing can be saved")
			if h := s.health(); h.Status != "degraded" {
				t.Errorf("health is %s", h.Status)
			}

			end()
			s.awaitTold("Saving works again")
			s.settled()
			if told := s.told(); len(told) != 2 || !strings.Contains(told[0], tt.says) {
				t.Errorf("Discord was told %q", told)
			}
			s.kill()
			s.whole()
			s.start()
			for path, want := range map[string]int{fresh: 4, before: 4, arriving: 2} {
				var export struct{ Messages []chat.Message }
				if err := s.get(path+"/export.json", &export); err != nil || len(export.Messages) != want {
					t.Errorf("%s has %d messages, not %d: %v", path, len(export.Messages), want, err)
				}
			}
			if told := s.told(); len(told) != 2 {
				t.Errorf("after the restart Discord was told %q", told)
			}
		})
	}
}

// page reads a page as a browser does.
func (s *storage) page(path string, into *strings.Builder) error {
	req, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/html")
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(into, resp.Body)
	return err
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) (empty func()) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// loop is a small ext4 file system in a file.
func loop(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 24<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		needs.Missing(t, fmt.Sprintf("mkfs.ext4: %v: %s", err, out))
	}
	return mounted(t, "ext4", image, "loop")
}

// The kernel takes a file system away, as it does when the disk below fails: ext4 refuses every write until it is mounted
// anew. What was acknowledged is there after that.
func TestAFileSystemThatTurnsReadOnly(t *testing.T) {
	dir := loop(t)
	s := newStorage(t, dir, "")
	for i := range 10 {
		s.job(fmt.Sprintf("slow %d", i), "")
	}
	conversation := s.ask("", "before")
	syscall.Sync() // what a power cut would lose is another matter
	if out, err := exec.Command("mount", "-o", "remount,abort", dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel cannot abort a file system: %v: %s", err, out)
	}
	for range 5 {
		s.call()
	}
	if status, text := s.job("too late "+strings.Repeat("x", 20_000), ""); status != 503 {
		t.Errorf("%d: %s", status, text)
	}
	s.ask("", "still there?")
	s.awaitTold("Nothing can be saved")
	s.kill()
	image, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(image))
	backing, err := exec.Command("losetup", "-n", "-O", "BACK-FILE", device).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := poll(10*time.Second, 50*time.Millisecond, func() error { return syscall.Unmount(dir, 0) }); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop", strings.TrimSpace(string(backing)), dir).CombinedOutput(); err != nil {
		t.Fatalf("mount again: %v: %s", err, out)
	}
	s.start()
	if err := poll(60*time.Second, 100*time.Millisecond, func() error {
		var all struct{ Counts map[string]int }
		if err := s.get("/api/jobs?limit=1", &all); err != nil {
			return err
		}
		if all.Counts["done"] != len(s.acknowledged) {
			return fmt.Errorf("of %d acknowledged jobs: %v", len(s.acknowledged), all.Counts)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if a := s.answer(conversation); a.Text != "It is so." {
		t.Errorf("the conversation says %q", a.Text)
	}
	s.kill()
	s.whole()
}

// A disk whose every sync takes a second holds nobody up for long, and nobody is told.
func TestASlowDiskIsNoReasonNotToAnswer(t *testing.T) {
	s := newStorage(t, "", "")
	end := inject(t, s, "fsync,fdatasync:delay_exit=1000000")
	slowest := time.Duration(0)
	for i := range 60 {
		slowest = max(slowest, s.call())
		if status, text := s.job(fmt.Sprintf("job %d %s", i, strings.Repeat("x", 60_000)), ""); status != 202 {
			t.Errorf("%d: %s", status, text)
		}
		if i%20 == 0 {
			s.ask("", "slow disk?")
		}
	}
	t.Logf("the slowest call took %s", slowest)
	if slowest > 30*time.Second {
		t.Errorf("the slowest call took %s", slowest)
	}
	end()
	s.settled()
	if told := s.told(); len(told) != 0 {
		t.Errorf("Discord was told %q", told)
	}
	s.kill()
	s.whole()
}

// A log that a dying machine left half written costs what stood at its end, not the start.
func TestALogThatIsCutOffIsNoReasonNotToStart(t *testing.T) {
	s := newStorage(t, "", "")
	for i := range 20 {
		s.job(fmt.Sprintf("job %d", i), "")
	}
	s.settled()
	s.kill()
	log := filepath.Join(s.dir, db.Name+"-wal")
	st, err := os.Stat(log)
	if err != nil || st.Size() < 10_000 {
		t.Fatal(st, err)
	}
	if err := os.Truncate(log, st.Size()*2/3); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ask("", "well?")
	if h := s.health(); h.Status != "ok" {
		t.Errorf("health is %s", h.Status)
	}
	s.kill()
	s.whole()
}

// Jobs end, Discord takes three messages of ten, and the process is killed again and again: everybody who asked is told, and
// nobody twice but where a kill came between Discord's answer and its being written down.
func TestNoAlertIsLostWhateverIsKilled(t *testing.T) {
	const jobs, kills = 48, 8
	s := newStorage(t, "", "seed: 7\nfaults:\n  - {kind: \"503\", chance: 0.2}\n  - {kind: \"429\", chance: 0.2, wait: 300ms}\n  - {kind: reset_before_headers, chance: 0.1}\n")
	for i := range jobs {
		if status, text := s.job(fmt.Sprintf("slow job %d", i), `, "notify": "always"`); status != 202 {
			t.Fatalf("%d: %s", status, text)
		}
		if i%(jobs/kills) == jobs/kills-1 {
			time.Sleep(time.Duration(100+i*37%900) * time.Millisecond) // any moment will do
			s.kill()
			s.start()
		}
	}
	counts := func() (told map[int64]int, text string) {
		told = map[int64]int{}
		text = strings.Join(s.told(), "\n")
		for _, id := range s.acknowledged {
			told[id] = strings.Count(text, fmt.Sprintf("Job %d (", id))
		}
		return told, text
	}
	if err := poll(4*time.Minute, 200*time.Millisecond, func() error {
		told, _ := counts()
		for id, n := range told {
			if n == 0 {
				return fmt.Errorf("nobody was told of job %d", id)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	told, text := counts()
	twice := 0
	for _, n := range told {
		twice += n - 1
	}
	if len(told) != jobs || strings.Contains(text, "planted") {
		t.Errorf("%d jobs are told of: %s", len(told), text)
	}
	t.Logf("%d of %d were told twice", twice, jobs)
	if twice > jobs/4 {
		t.Errorf("%d were told twice", twice)
	}
}
