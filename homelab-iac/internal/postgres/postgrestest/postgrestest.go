// Package postgrestest starts a real PostgreSQL for tests.
package postgrestest

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/postgres"
)

// Start makes a cluster of its own below a temporary folder, listening on a socket there and nowhere else. Without PostgreSQL
// the test is skipped, or fails where HOMELAB_PROVE is set.
func Start(t testing.TB) postgres.Server {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		if os.Getenv("HOMELAB_PROVE") != "" {
			t.Fatal("PostgreSQL is missing: run homelab-iac/test/tools/setup.sh")
		}
		t.Skip("PostgreSQL is missing: homelab-iac/test/tools/setup.sh installs it")
	}
	slices.Sort(found)
	bin := found[len(found)-1]
	major, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hlpg") // short: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr := unprivileged(t, dir)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...)
		cmd.SysProcAttr, cmd.Dir = attr, dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "--pgdata="+data, "--username=tester", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=20")
	server.SysProcAttr, server.Dir = attr, dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGINT); err == nil {
			server.Wait() //nolint:errcheck // it was told to end
		}
	})
	s := postgres.Server{User: "tester", Major: major, Env: []string{"PGHOST=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH")}}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := s.Check(t.Context()); err == nil {
			return s
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// unprivileged is who the server runs as: PostgreSQL refuses root.
func unprivileged(t testing.TB, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// SQL runs statements in a database.
func SQL(t testing.TB, s postgres.Server, database, text string) {
	t.Helper()
	argv := s.Argv("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname="+database, "--command="+text)
	Command(t, s, argv, "")
}

// Command runs one of the commands of package postgres, with a file as its standard input where one is named.
func Command(t testing.TB, s postgres.Server, argv []string, stdin string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	if stdin != "" {
		f, err := os.Open(stdin)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}
