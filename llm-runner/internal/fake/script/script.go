// Package script is the language in which answers and faults are written down, for the fake upstreams (package fake)
// and for the scripted provider alike. A script is a YAML file, or JSON, which is YAML too:
//
//	key: sk-secret              # the key a caller must show; left out: any key, or none
//	models: [small, large]      # what the model list shows and what answers; left out: any model answers
//	dimensions: 64              # of embeddings
//	context: 512                # tokens of a text that an embedding model reads; left out: any number
//	seed: 1                     # of the faults' chances
//	reply:                      # the first rule that matches answers; without rules the input is echoed
//	  - match: weather          # a part of the last user message, or /a regular expression/; left out: anything
//	    thinking: Let me see.
//	    calls:
//	      - {name: weather, arguments: '{"city":"Oslo"}'}
//	  - match: /^wait/
//	    text: "It {{input}}s."  # {{input}} is the last user message
//	    delay: 2s               # before the first byte
//	    chunk_delay: 20ms       # before each further chunk; or tokens_per_second: 50
//	    chunk_size: 3           # words in a chunk
//	    usage: {input: 12, output: 3, cached: 4, thinking: 1}   # left out: words are counted; no_usage: true tells none
//	  - match: busy
//	    fault: {kind: "429", wait: 30s}
//	limits:                     # enforced, and told as the provider tells them
//	  - {dimension: requests/minute, max: 30}
//	  - {dimension: tokens/day, max: 100000, model: small}
//	faults:                     # of the n-th requests (from 1), by chance, or always
//	  - {kind: "503", on: [1, 2]}
//	  - {kind: reset_mid_stream, chance: 0.1}
package script

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Script says what is answered and what goes wrong. The zero value echoes the input.
type Script struct {
	Key        string   `yaml:"key"`
	Models     []string `yaml:"models"`
	Dimensions int      `yaml:"dimensions"` // 0 means those of the named model in the fakes, 64 elsewhere
	Context    int64    `yaml:"context"`    // tokens that are embedded; 0 no limit
	Seed       uint64   `yaml:"seed"`
	Reply      []Rule   `yaml:"reply"`
	Limits     []Limit  `yaml:"limits"`
	Faults     []Fault  `yaml:"faults"`
}

// A Rule is one answer and when it is given.
type Rule struct {
	Match string `yaml:"match"` // of the last user message: a part of it, or a /regexp/; "" matches anything
	Model string `yaml:"model"` // "" any
	After string `yaml:"after"` // a part of the result of a tool with which the request ends; "" whatever it ends with

	Text      string `yaml:"text"`
	Thinking  string `yaml:"thinking"`
	Signature string `yaml:"signature"` // seals the thinking, or else the first call (Anthropic, Gemini)
	Calls     []Call `yaml:"calls"`
	Usage     *Usage `yaml:"usage"`
	NoUsage   bool   `yaml:"no_usage"`
	// Finish is "" for tool_calls where there are calls and else stop.
	Finish llm.Finish `yaml:"finish"`

	Delay           time.Duration `yaml:"delay"`             // before the first byte
	ChunkDelay      time.Duration `yaml:"chunk_delay"`       // before each further chunk
	TokensPerSecond float64       `yaml:"tokens_per_second"` // another way to say ChunkDelay
	ChunkSize       int           `yaml:"chunk_size"`        // words in a chunk; 0 means 1

	Fault *Fault `yaml:"fault"`

	pattern *regexp.Regexp
}

// A Call is a tool call. ID "" is made up where the provider has ids.
type Call struct {
	ID        string `yaml:"id"`
	Name      string `yaml:"name"`
	Arguments string `yaml:"arguments"` // JSON text
}

// Usage tells token counts; those left out are not told.
type Usage struct {
	Input    *int64 `yaml:"input"`
	Output   *int64 `yaml:"output"`
	Cached   *int64 `yaml:"cached"`
	Thinking *int64 `yaml:"thinking"`
}

// A Limit is one rate limit, enforced.
type Limit struct {
	Dimension string `yaml:"dimension"` // a dimension of package llm
	Max       int64  `yaml:"max"`
	Model     string `yaml:"model"` // "" for all models together
}

// Load reads and checks the script at path. Errors name the line, the field and the cure.
func Load(path string) (Script, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Script{}, fmt.Errorf("read script: %w", err)
	}
	s, err := Parse(b)
	if err != nil {
		return Script{}, fmt.Errorf("read script %s: %w", path, err)
	}
	return s, nil
}

// Parse reads and checks a script. An empty one is the zero Script.
func Parse(b []byte) (Script, error) {
	var s Script
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && err != io.EOF {
		return Script{}, explain(err)
	}
	return s, s.Check()
}

// typeNames are how the YAML package and people call the same things.
var typeNames = strings.NewReplacer(
	"yaml: unmarshal errors:\n  ", "", "yaml: ", "", "\n  ", "; ",
	" not found in type script.Script", " is unknown; known are key, models, dimensions, context, seed, reply, limits, faults",
	" not found in type script.Rule", " is unknown in a reply; known are match, model, after, text, thinking, signature, calls, usage, no_usage, finish, delay, chunk_delay, tokens_per_second, chunk_size, fault",
	" not found in type script.Call", " is unknown in a call; known are id, name, arguments",
	" not found in type script.Usage", " is unknown in usage; known are input, output, cached, thinking",
	" not found in type script.Limit", " is unknown in a limit; known are dimension, max, model",
	" not found in type script.Fault", " is unknown in a fault; known are kind, on, chance, wait, message, status, headers, body",
	"into time.Duration", "as a duration; write 20ms, 2s or 1m30s",
	"!!str ", "", "!!seq", "a list", "!!map", "a mapping",
)

func explain(err error) error { return fmt.Errorf("%s", typeNames.Replace(err.Error())) }

// Check compiles the rules' patterns and returns the first fault of s, named by its place. Scripts that were built in Go and not
// parsed are checked before use.
func (s *Script) Check() error {
	if s.Dimensions < 0 {
		return fmt.Errorf("dimensions: %d is negative", s.Dimensions)
	}
	for i := range s.Reply {
		if err := s.Reply[i].check(); err != nil {
			return fmt.Errorf("reply[%d].%w", i, err)
		}
	}
	for i, l := range s.Limits {
		if _, _, ok := l.Window(); !ok {
			return fmt.Errorf("limits[%d].dimension: %q is not one of %s", i, l.Dimension, strings.Join(dimensions, ", "))
		}
		if l.Max <= 0 {
			return fmt.Errorf("limits[%d].max: %d is not positive", i, l.Max)
		}
	}
	for i := range s.Faults {
		if err := s.Faults[i].check(); err != nil {
			return fmt.Errorf("faults[%d].%w", i, err)
		}
	}
	return nil
}

func (r *Rule) check() error {
	if n := len(r.Match); n > 1 && r.Match[0] == '/' && r.Match[n-1] == '/' {
		p, err := regexp.Compile(r.Match[1 : n-1])
		if err != nil {
			return fmt.Errorf("match: %w", err)
		}
		r.pattern = p
	}
	switch r.Finish {
	case "", llm.FinishStop, llm.FinishLength, llm.FinishTools, llm.FinishRefusal:
	default:
		return fmt.Errorf("finish: %q is not one of stop, length, tool_calls, content_filter", r.Finish)
	}
	for i, c := range r.Calls {
		if c.Name == "" {
			return fmt.Errorf("calls[%d].name: is missing", i)
		}
	}
	if r.TokensPerSecond < 0 || r.ChunkSize < 0 || r.Delay < 0 || r.ChunkDelay < 0 {
		return fmt.Errorf("delay, chunk_delay, tokens_per_second, chunk_size: must not be negative")
	}
	if r.Fault != nil {
		if err := r.Fault.check(); err != nil {
			return fmt.Errorf("fault.%w", err)
		}
	}
	return nil
}

// Answer returns the index of the first rule for model and input, and that rule with {{input}} filled in; -1 and an echo of
// the input where none matches.
func (s *Script) Answer(model, input string) (int, Rule) { return s.AnswerAfter(model, input, "") }

// AnswerAfter is Answer to a request that ends with the result of a tool.
func (s *Script) AnswerAfter(model, input, result string) (int, Rule) {
	for i, r := range s.Reply {
		if r.Model != "" && r.Model != model {
			continue
		}
		if r.pattern != nil && !r.pattern.MatchString(input) || r.pattern == nil && !strings.Contains(input, r.Match) {
			continue
		}
		if !strings.Contains(result, r.After) {
			continue
		}
		r.Text = strings.ReplaceAll(r.Text, "{{input}}", input)
		r.Thinking = strings.ReplaceAll(r.Thinking, "{{input}}", input)
		calls := make([]Call, len(r.Calls))
		for j, c := range r.Calls {
			if c.ID == "" {
				c.ID = "call_" + strconv.Itoa(j)
			}
			c.Arguments = strings.ReplaceAll(c.Arguments, "{{input}}", escape(input))
			calls[j] = c
		}
		r.Calls = calls
		return i, r.complete()
	}
	return -1, Rule{Text: "You said: " + input}.complete()
}

// escape writes s as it stands inside the quotes of a JSON string.
func escape(s string) string {
	q, _ := json.Marshal(s) // strings always can be
	return string(q[1 : len(q)-1])
}

// complete fills in what a rule leaves to its other fields.
func (r Rule) complete() Rule {
	if r.Finish == "" {
		r.Finish = llm.FinishStop
		if len(r.Calls) > 0 {
			r.Finish = llm.FinishTools
		}
	}
	if r.TokensPerSecond > 0 && r.ChunkDelay == 0 {
		r.ChunkDelay = time.Duration(float64(time.Second) / r.TokensPerSecond)
	}
	r.ChunkSize = max(r.ChunkSize, 1)
	return r
}

// Told returns the usage that r tells of an answer to prompt.
func (r Rule) Told(prompt string) llm.Usage {
	switch {
	case r.NoUsage:
		return llm.Usage{}
	case r.Usage != nil:
		return llm.Usage{Input: count(r.Usage.Input), Output: count(r.Usage.Output), CachedInput: count(r.Usage.Cached), Thinking: count(r.Usage.Thinking)}
	}
	out := Tokens(r.Text) + Tokens(r.Thinking)
	for _, c := range r.Calls {
		out += Tokens(c.Name) + Tokens(c.Arguments)
	}
	return llm.Usage{Input: llm.Known(Tokens(prompt)), Output: llm.Known(out)}
}

func count(n *int64) llm.Count {
	if n == nil {
		return llm.Count{}
	}
	return llm.Known(*n)
}

// Tokens is how many tokens the fakes take s for: its words.
func Tokens(s string) int64 { return int64(len(strings.Fields(s))) }

// Pieces cuts s into chunks of n words each; every piece but the first begins with the space before its first word. The
// pieces add up to s.
func Pieces(s string, n int) []string {
	var pieces []string
	words, start := 0, 0
	for i := 1; i < len(s); i++ {
		if isSpace(s[i]) && !isSpace(s[i-1]) {
			if words++; words%n == 0 {
				pieces = append(pieces, s[start:i])
				start = i
			}
		}
	}
	if start < len(s) {
		pieces = append(pieces, s[start:])
	}
	return pieces
}

// Chars cuts s into pieces of at most n bytes, never inside a character.
func Chars(s string, n int) []string {
	var pieces []string
	start := 0
	for i := range s {
		if i-start >= n {
			pieces = append(pieces, s[start:i])
			start = i
		}
	}
	if start < len(s) {
		pieces = append(pieces, s[start:])
	}
	return pieces
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

var dimensions = []string{llm.RequestsPerMinute, llm.RequestsPerDay, llm.TokensPerMinute, llm.TokensPerDay, llm.InputTokensPerMinute, llm.OutputTokensPerMinute}

// Window returns what l counts ("requests", "tokens", "input_tokens" or "output_tokens") and the time over which.
func (l Limit) Window() (unit string, window time.Duration, ok bool) {
	unit, per, _ := strings.Cut(l.Dimension, "/")
	for _, d := range dimensions {
		ok = ok || d == l.Dimension
	}
	window = time.Minute
	if per == "day" {
		window = 24 * time.Hour
	}
	return unit, window, ok
}

// Vector returns a unit vector of n dimensions that depends on text alone: the same words give near vectors, whatever
// their order, so that searches in tests find what they should.
func Vector(text string, n int) []float32 {
	sum := make([]float64, n)
	for _, word := range strings.Fields(strings.ToLower(text)) {
		h := fnv.New64a()
		h.Write([]byte(strings.Trim(word, ".,;:!?()[]\"'")))
		rng := rand.New(rand.NewPCG(h.Sum64(), 0))
		for i := range sum {
			sum[i] += rng.NormFloat64()
		}
	}
	var norm float64
	for _, x := range sum {
		norm += x * x
	}
	v := make([]float32, n)
	if norm == 0 {
		if n > 0 {
			v[0] = 1
		}
		return v
	}
	for i, x := range sum {
		v[i] = float32(x / math.Sqrt(norm))
	}
	return v
}
