// Package postgres dumps PostgreSQL servers and measures what is in them, through the server's own programs: psql, pg_dump and
// pg_dumpall run beside the server (in its container), so that client and server are of one version and no port is open.
package postgres

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Server is a PostgreSQL that is reached through programs.
type Server struct {
	Exec  []string // stands before every program: docker compose ... exec -T postgres; empty: this machine
	User  string   // a superuser
	Major int      // what the server must be
	Env   []string // for the programs, beside this process' own
}

func (s Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	argv := s.Argv(program, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), append([]string{"PGCONNECT_TIMEOUT=15"}, s.Env...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Argv is the whole command line of one of PostgreSQL's programs.
func (s Server) Argv(program string, args ...string) []string {
	argv := append([]string{}, s.Exec...)
	argv = append(argv, program)
	if s.User != "" {
		argv = append(argv, "--username="+s.User)
	}
	return append(argv, args...)
}

// run runs a program and hands its output to out.
func (s Server) run(ctx context.Context, in io.Reader, out io.Writer, program string, args ...string) error {
	cmd := s.command(ctx, program, args...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, lastLine(said.String()))
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return last
	}
	return "it said nothing; is the server up?"
}

// query runs one statement in a session of its own and returns the lines of its answer.
func (s Server) query(ctx context.Context, database, statement string) ([]string, error) {
	var out bytes.Buffer
	if err := s.run(ctx, strings.NewReader(statement), &out, "psql", psqlFlags(database)...); err != nil {
		return nil, err
	}
	return lines(out.String()), nil
}

func psqlFlags(database string) []string {
	return []string{"--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=" + database}
}

func lines(text string) []string {
	if text = strings.TrimRight(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Check says whether the server answers, and whether it and its programs are of the version that the catalog names. It returns
// the server's full version.
func (s Server) Check(ctx context.Context) (string, error) {
	got, err := s.query(ctx, "postgres", serverVersion)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(strings.Join(got, ""))
	if err != nil {
		return "", fmt.Errorf("read server version %q: %w", got, err)
	}
	var client bytes.Buffer
	plain := s
	plain.User = ""
	if err := plain.run(ctx, nil, &client, "pg_dump", "--version"); err != nil {
		return "", err
	}
	clientMajor, err := majorOf(client.String())
	if err != nil {
		return "", err
	}
	version := fmt.Sprintf("%d.%d", number/10000, number%10000)
	switch {
	case s.Major != 0 && number/10000 != s.Major:
		return version, fmt.Errorf("check server: PostgreSQL %s answers and the catalog says %d: a dump loads only into its own major version; correct backup.dumps.major", version, s.Major)
	case clientMajor != number/10000:
		return version, fmt.Errorf("check server: pg_dump is of version %d and the server of %s: run the programs of the server's container", clientMajor, version)
	}
	return version, nil
}

// majorOf reads "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func majorOf(text string) (int, error) {
	_, rest, ok := strings.Cut(text, "(PostgreSQL) ")
	digits := strings.TrimLeftFunc(rest, func(r rune) bool { return r >= '0' && r <= '9' })
	n, err := strconv.Atoi(rest[:len(rest)-len(digits)])
	if !ok || err != nil {
		return 0, fmt.Errorf("read version %q: it is not pg_dump's", strings.TrimSpace(text))
	}
	return n, nil
}

// A session is one psql that stays, so that everything is asked in one transaction.
type session struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	said *bytes.Buffer
}

func (s Server) open(ctx context.Context, database string) (*session, error) {
	cmd := s.command(ctx, "psql", psqlFlags(database)...)
	p := &session{cmd: cmd, said: &bytes.Buffer{}}
	cmd.Stderr = p.said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 256<<10)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run psql: %w", err)
	}
	return p, nil
}

func (p *session) close() {
	p.in.Close()
	p.cmd.Wait() //nolint:errcheck // what went wrong was reported where it was asked
}

// each runs a statement and hands over every line of its answer.
func (p *session) each(statement string, line func([]byte)) error {
	mark := "homelab-" + rand.Text()
	if _, err := fmt.Fprintf(p.in, "%s\n\\echo %s\n", statement, mark); err != nil {
		return p.broken(err)
	}
	for {
		text, err := p.out.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // a long row: hand it over in pieces
			line(text)
			continue
		}
		if err != nil {
			return p.broken(err)
		}
		if string(bytes.TrimSuffix(text, []byte("\n"))) == mark {
			return nil
		}
		line(text)
	}
}

func (p *session) ask(statement string) ([]string, error) {
	var out bytes.Buffer
	err := p.each(statement, func(b []byte) { out.Write(b) })
	return lines(out.String()), err
}

func (p *session) broken(err error) error {
	p.in.Close()
	p.cmd.Wait() //nolint:errcheck // its words say more
	return fmt.Errorf("ask postgres: %w: %s", err, lastLine(p.said.String()))
}

// hash counts and hashes the rows of a table, in order.
func (p *session) hash(table string) (Table, error) {
	t := Table{Name: table}
	sum := sha256.New()
	err := p.each(rowsInOrder(table), func(b []byte) {
		sum.Write(b)
		if b[len(b)-1] == '\n' {
			t.Rows++
		}
	})
	t.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return t, err
}
