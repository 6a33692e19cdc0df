package ollama

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// MaxLine is the size in bytes beyond which a line is refused.
const MaxLine = 32 << 20

// line is one line of an answer.
type line struct {
	Message struct {
		Content  string `json:"content"`
		Thinking string `json:"thinking"`
		Calls    []call `json:"tool_calls"`
	} `json:"message"`
	Done   bool   `json:"done"`
	Reason string `json:"done_reason"`
	Prompt *int64 `json:"prompt_eval_count"` // left out where the whole prompt was cached
	Output *int64 `json:"eval_count"`
	Error  string `json:"error"`
}

// read turns the lines of an answer into events, the Finish last. The n-th call of the conversation (from 0, callsBefore of
// them in earlier turns) gets the id call_n where the server gives none: the same every time, and never twice.
func read(body io.Reader, callsBefore int) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		sc := bufio.NewScanner(body)
		sc.Buffer(make([]byte, 0, 4<<10), MaxLine)
		calls := 0
		for sc.Scan() {
			b := bytes.TrimSpace(sc.Bytes())
			if len(b) == 0 {
				continue
			}
			var in line
			if err := json.Unmarshal(b, &in); err != nil {
				yield(llm.Event{}, malformed(sc, b, err))
				return
			}
			if in.Error != "" {
				yield(llm.Event{}, inBand(in.Error))
				return
			}
			if m := in.Message; m.Content != "" || m.Thinking != "" {
				if !yield(llm.Event{Text: m.Content, Thinking: m.Thinking}, nil) {
					return
				}
			}
			for _, c := range in.Message.Calls {
				d := &llm.CallDelta{Index: calls, ID: c.ID, Name: c.Function.Name, Arguments: text(c.Function.Arguments)}
				if d.ID == "" {
					d.ID = "call_" + strconv.Itoa(callsBefore+calls)
				}
				calls++
				if !yield(llm.Event{Call: d}, nil) {
					return
				}
			}
			if in.Done {
				ev := llm.Event{Finish: finish(in.Reason, calls)}
				if in.Prompt != nil || in.Output != nil {
					ev.Usage = &llm.Usage{Input: count(in.Prompt), Output: count(in.Output)}
				}
				yield(ev, nil)
				return
			}
		}
		yield(llm.Event{}, broken(sc.Err()))
	}
}

// text returns a call's arguments as text. Some templates write them as a string of JSON.
func text(arguments json.RawMessage) string {
	var s string
	switch {
	case len(arguments) == 0 || string(arguments) == "null":
		return "{}"
	case arguments[0] == '"' && json.Unmarshal(arguments, &s) == nil:
		return s
	}
	return string(arguments)
}

// finish reads done_reason: "stop", "length", or "load" and "unload" where there was nothing to answer; older servers tell none.
func finish(reason string, calls int) llm.Finish {
	switch {
	case reason == "length":
		return llm.FinishLength
	case calls > 0:
		return llm.FinishTools
	}
	return llm.FinishStop
}

// malformed says what is wrong with line b, which is not JSON: often it is only the half that came before the connection
// broke.
func malformed(sc *bufio.Scanner, b []byte, err error) error {
	if b[0] == '<' {
		return upstream.ErrPage
	}
	if !sc.Scan() {
		return broken(sc.Err())
	}
	return fmt.Errorf("the answer holds a line that is not Ollama's: %w", err)
}

// broken says why the lines ended before the last one: err, or, where it is nil, without a word.
func broken(err error) error {
	if err == nil {
		err = errors.New("its last line is missing")
	}
	return upstream.Broken(err)
}
