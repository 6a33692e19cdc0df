package gateway

import (
	"fmt"

	"home.arpa/lab/llm-runner/internal/route"
)

// streamHeader is where a client says for one request what the row of the table says for all.
const streamHeader = "X-Runner-Stream"

// What it can say.
const (
	streamLive  = "live"
	streamWhole = "whole"
)

// heldBack says that the client sees nothing of a stream until its answer is whole. The client's word counts, then the row's
// that was asked for, whichever target answers.
func (c *call) heldBack(a *route.Attempt) bool {
	return c.head.stream && (c.pace == streamWhole || c.pace == "" && a.Decision.Whole)
}

// A store keeps what is to go out, while it is held back. The zero value keeps nothing.
type store struct {
	back bool   // is held back
	kept []byte // at most maxHeld bytes
}

// keep says that parts are kept. They are not where nothing is held back, or any more: an answer larger than maxHeld, of
// which none has been seen, flows from there as it comes, behind what was kept.
func (s *store) keep(parts ...[]byte) bool {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if !s.back || len(s.kept)+size > maxHeld {
		return false
	}
	for _, p := range parts {
		s.kept = append(s.kept, p...)
	}
	return true
}

// release returns what was kept, for the client, and holds nothing back from here on.
func (s *store) release() []byte {
	kept := s.kept
	*s = store{}
	return kept
}

// name tells who answers in a comment, where the headers named another: they went out with the comments before it, while that
// one was asked.
func (o *reply) name(a *route.Attempt) error {
	told := o.w.Header()
	asked := route.Target{Provider: told.Get("X-Runner-Provider"), Model: told.Get("X-Runner-Model")}
	if asked.Provider == "" || asked == a.Target {
		return nil
	}
	return o.write(fmt.Appendf(nil, ": answered by %s, rule %s\n\n", a.Target, a.Decision.Rule))
}
