// Package ollamatest runs a real Ollama server with the tiny models of package tinymodel, for tests and for trying the
// whole product on a machine without a GPU.
package ollamatest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

// Version is the Ollama that setup.sh builds.
const Version = "v0.17.4"

// ErrNotBuilt says that setup.sh has not been run for this user.
var ErrNotBuilt = errors.New("no Ollama for tests here: run llm-runner/test/setup.sh once")

// Binary returns the server that setup.sh built.
func Binary() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "llm-runner", "ollama-"+Version, "ollama")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotBuilt
	}
	return path, err
}

// A Server is an Ollama of its own: its home, its models and its log are in one directory, and nothing else is touched.
type Server struct {
	URL string // http://127.0.0.1:PORT, the same for each Up

	binary, dir string
	process     *exec.Cmd
	exited      chan struct{}
}

// New prepares a server in dir that will listen on address (host:port; port 0: any free one). It does not start it.
func New(binary, dir, address string) (*Server, error) {
	for _, sub := range []string{"home", "models", "tiny"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := tinymodel.Write(filepath.Join(dir, "tiny")); err != nil {
		return nil, err
	}
	// The port is free at this moment; Up says so if somebody else has taken it meanwhile.
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("find a port for ollama: %w", err)
	}
	defer l.Close()
	return &Server{URL: "http://" + l.Addr().String(), binary: binary, dir: dir}, nil
}

// environment is all that the server gets to see, so that a developer's own settings and models stay out of it.
func (s *Server) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(s.dir, "home"),
		"OLLAMA_MODELS=" + filepath.Join(s.dir, "models"),
		"OLLAMA_HOST=" + s.URL,
		"OLLAMA_KEEP_ALIVE=1h", // no reloading in the midst of a test
		"OLLAMA_NUM_PARALLEL=4",
		"OLLAMA_MAX_LOADED_MODELS=4",
	}
}

// Up starts the server and waits until it answers or ctx ends.
func (s *Server) Up(ctx context.Context) error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own copy
	s.process = exec.Command(s.binary, "serve")
	s.process.Env = s.environment()
	s.process.Stdout, s.process.Stderr = log, log
	// A group of its own, because models run in child processes; and it must not outlive a test that was killed.
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start ollama: %w", err)
	}
	s.exited = make(chan struct{})
	go func(p *exec.Cmd, exited chan struct{}) {
		_ = p.Wait() // how it ended is in its log
		close(exited)
	}(s.process, s.exited)

	for {
		if s.Get(ctx, "/api/version", nil) == nil {
			return nil
		}
		select {
		case <-s.exited:
			s.process = nil
			return fmt.Errorf("ollama ended at once:\n%s", s.LogTail())
		case <-ctx.Done():
			s.Down()
			return fmt.Errorf("ollama does not answer: %w\n%s", ctx.Err(), s.LogTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Down ends the server at once, the way a power cut does. It may be started again with Up.
func (s *Server) Down() {
	if s.process == nil {
		return
	}
	_ = syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL) // the group; it may be gone already
	<-s.exited
	s.process = nil
}

// CreateModels makes Ollama know the tiny models. Those that it knows already stay.
func (s *Server) CreateModels(ctx context.Context) error {
	for _, name := range tinymodel.Names {
		create := exec.CommandContext(ctx, s.binary, "create", name, "-f", name+".Modelfile")
		create.Dir = filepath.Join(s.dir, "tiny")
		create.Env = s.environment()
		if out, err := create.CombinedOutput(); err != nil {
			return fmt.Errorf("create %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// Get asks the server for a JSON document; into may be nil.
func (s *Server) Get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "ollama.log") }

// Log is what the server has said so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// LogTail is the end of Log, for error messages.
func (s *Server) LogTail() string {
	const most = 4000
	text := []byte(s.Log())
	if len(text) > most {
		text = text[len(text)-most:]
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return string(text)
}
