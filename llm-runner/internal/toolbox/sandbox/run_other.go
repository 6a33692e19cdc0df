//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"time"
)

func (s *Sandbox) absent() string {
	return "there is a sandbox on Linux only: run llm-runner there, or do without code_exec"
}

// Run runs a program for at most limit.
func (s *Sandbox) Run(context.Context, string, time.Duration) (Outcome, error) {
	return Outcome{}, errors.New(s.absent())
}
