package ollamatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// WaitIdle waits until the server and its models use no more processor time worth mentioning (under a tenth of a core),
// and returns how long that took. Ollama does not log that it gave up an answer, so this is the proof that it did.
func (s *Server) WaitIdle(limit time.Duration) (time.Duration, error) {
	const look = 100 * time.Millisecond
	started := time.Now()
	for before := s.cpu(); time.Since(started) < limit; {
		time.Sleep(look)
		now := s.cpu()
		if now-before < look/10 {
			return time.Since(started) - look, nil // it was idle for the whole look
		}
		before = now
	}
	return limit, fmt.Errorf("ollama is still busy after %v", limit)
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
