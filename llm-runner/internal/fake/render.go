package fake

import (
	"sync"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// A stream is a rendered stream: its frames, and all of them in one piece.
type stream struct {
	frames []frame
	joined []byte
}

// renders keeps answers that have been rendered before, so that a fake under load costs little.
type renders struct {
	mu      sync.Mutex
	answers map[renderKey][]byte
	streams map[renderKey]stream
}

type renderKey struct {
	rule         int
	model, input string
	prompt       int64 // tokens
	usage, json  bool
	array        bool
}

// maxRenders and maxRendered (bytes of input) bound the memory of renders.
const (
	maxRenders  = 256
	maxRendered = 4 << 10
)

func keyOf(rule int, a ask) renderKey {
	return renderKey{rule, a.model, a.input, script.Tokens(a.prompt), a.usage, a.json, a.array}
}

func (c *renders) answer(d dialect, rule int, a ask, r script.Rule) []byte {
	return cached(c, &c.answers, keyOf(rule, a), func() []byte { return d.answer(a, r) })
}

func (c *renders) stream(d dialect, rule int, a ask, r script.Rule) stream {
	return cached(c, &c.streams, keyOf(rule, a), func() stream {
		st := stream{frames: d.stream(a, r)}
		for _, f := range st.frames {
			st.joined = append(st.joined, f.data...)
		}
		return st
	})
}

func cached[T any](c *renders, m *map[renderKey]T, k renderKey, render func() T) T {
	c.mu.Lock()
	v, ok := (*m)[k]
	c.mu.Unlock()
	if ok {
		return v
	}
	v = render()
	if len(k.input) > maxRendered {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil || len(*m) >= maxRenders {
		*m = map[renderKey]T{}
	}
	(*m)[k] = v
	return v
}
