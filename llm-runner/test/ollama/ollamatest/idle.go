package ollamatest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// WaitIdle waits until the server and its models use no more processor time worth mentioning (under a tenth of a core, for
// two seconds), and returns how much they used until then. Ollama does not log that it gave up an answer, so this is the
// proof that it did; and it is one on a machine where others want the processor, too, since it counts what was done.
func (s *Server) WaitIdle() (used time.Duration, err error) {
	const look, limit = 500 * time.Millisecond, time.Minute
	started, first := time.Now(), s.cpu()
	idle := 0 // looks in a row; who gets no processor for a moment looks idle, too
	for before := first; time.Since(started) < limit; {
		time.Sleep(look)
		now := s.cpu()
		if idle++; now-before >= look/10 {
			idle = 0
		}
		if before = now; idle == 4 {
			return now - first, nil
		}
	}
	return 0, fmt.Errorf("ollama is still busy after %v", limit)
}

// Whole has tiny-slow count to its end and returns the processor time that it took.
func (s *Server) Whole() (used time.Duration, err error) {
	ask := func(body string) error {
		resp, err := http.Post(s.URL+"/api/chat", "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := ask(`{"model":"tiny-slow"}`); err != nil { // loads it
		return 0, err
	}
	before := s.cpu()
	err = ask(`{"model":"tiny-slow","stream":false,"messages":[{"role":"user","content":"go"}]}`)
	return s.cpu() - before, err
}

// cpu is the processor time that the server's process group has used, in steps of 10 ms (proc_pid_stat(5)).
func (s *Server) cpu() (sum time.Duration) {
	group := strconv.Itoa(s.process.Process.Pid)
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		// "PID (name) STATE PPID PGRP ...": names may hold blanks and brackets.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
		f := strings.Fields(rest)
		if len(f) < 13 || f[2] != group {
			continue
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		sum += time.Duration(user+system) * 10 * time.Millisecond
	}
	return sum
}
