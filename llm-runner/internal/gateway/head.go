package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// A head is what the gateway must know of a request's body; the rest is the upstream's business. Where a key stands
// twice the last one counts, as in encoding/json and in every provider's parser we know.
type head struct {
	model  string // "" none named
	stream bool
	// saysStream: stream stands there, and is not null.
	saysStream bool
	// maxTokens is how long the answer may get; 0 not said, or not as a number.
	maxTokens int64
	usage     bool // a stream's usage is asked for (stream_options.include_usage)
	modelAt   span // the value of model
	models    int  // how often model stands there
	options   span // the value of stream_options
	empty     bool // the body is {}
	open      int  // offset behind the opening brace
}

// maxModelName bounds what is written into the ledger and headers. The longest names in use have about 100 bytes.
const maxModelName = 256

// readHead checks that body is one JSON object and reads its head.
func readHead(body []byte) (head, error) {
	h := head{empty: true}
	var streamAt span
	c := cursor{text: body}
	if c.peek() != '{' {
		if c.value(); c.fault() == nil {
			c.end()
		}
		if err := c.fault(); err != nil {
			return h, err
		}
		return h, errors.New("the body must be a JSON object")
	}
	h.open = c.at + 1
	for more := c.enter('{'); more; more = c.next('}') {
		h.empty = false
		switch key := c.key(); {
		case named(key, "model"):
			h.modelAt = c.value()
			h.models++
		case named(key, "stream"):
			streamAt = c.value()
		case named(key, "stream_options"):
			h.options = c.value()
		case named(key, "max_tokens"), named(key, "max_completion_tokens"):
			h.maxTokens, _ = strconv.ParseInt(string(c.value().of(body)), 10, 32)
			h.maxTokens = max(h.maxTokens, 0)
		default:
			c.value()
		}
	}
	if c.end(); c.fault() != nil {
		return h, c.fault()
	}
	return h, h.interpret(body, streamAt)
}

func (h *head) interpret(body []byte, streamAt span) error {
	switch v := h.modelAt.of(body); {
	case len(v) == 0 || string(v) == "null":
	case v[0] != '"':
		return errors.New("model must be a string")
	case len(v) > maxModelName+2:
		return fmt.Errorf("model is longer than %d bytes", maxModelName)
	default:
		h.model = unquote(v[1 : len(v)-1])
	}
	switch v := streamAt.of(body); string(v) {
	case "", "null":
	case "false":
		h.saysStream = true
	case "true":
		h.stream, h.saysStream = true, true
	default:
		return errors.New("stream must be true or false")
	}
	if v := h.options.of(body); len(v) > 0 && v[0] == '{' {
		c := cursor{text: v}
		for more := c.enter('{'); more; more = c.next('}') {
			asks := named(c.key(), "include_usage")
			if s := c.value(); asks {
				h.usage = string(s.of(v)) == "true"
			}
		}
	}
	return nil
}

// An edit puts text in the place of the bytes at a span.
type edit struct {
	span
	text string
}

// rewrite returns body with the model's name replaced, and with include_usage asked for where askUsage says so. Nothing
// else changes, not a blank. Where nothing is to change, body itself is returned.
func (h *head) rewrite(body []byte, model string, askUsage bool) []byte {
	var edits []edit
	if model != h.model {
		name, _ := json.Marshal(model) // a string always has a JSON form
		edits = h.rename(body, string(name), edits)
	}
	if askUsage {
		edits = h.wishUsage(body, edits)
	}
	if len(edits) == 0 {
		return body
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	return splice(body, edits)
}

func (h *head) rename(body []byte, name string, edits []edit) []edit {
	switch h.models {
	case 0:
		return append(edits, h.insert(`"model":`+name))
	case 1:
		return append(edits, edit{h.modelAt, name})
	}
	// An upstream that takes the first of several must not get another model than the one that was decided on.
	c := cursor{text: body}
	for more := c.enter('{'); more; more = c.next('}') {
		is := named(c.key(), "model")
		if s := c.value(); is {
			edits = append(edits, edit{s, name})
		}
	}
	return edits
}

func (h *head) wishUsage(body []byte, edits []edit) []edit {
	v := h.options.of(body)
	if len(v) == 0 {
		return append(edits, h.insert(`"stream_options":{"include_usage":true}`))
	}
	if v[0] != '{' {
		return append(edits, edit{h.options, `{"include_usage":true}`})
	}
	c, empty, said := cursor{text: v}, true, false
	for more := c.enter('{'); more; more = c.next('}') {
		is := named(c.key(), "include_usage")
		s := c.value()
		if empty = false; is {
			said = true
			edits = append(edits, edit{span{h.options.start + s.start, h.options.start + s.end}, "true"})
		}
	}
	if said {
		return edits
	}
	at := h.options.start + 1
	if empty {
		return append(edits, edit{span{at, at}, `"include_usage":true`})
	}
	return append(edits, edit{span{at, at}, `"include_usage":true,`})
}

// insert returns the edit that puts a member in front of all others.
func (h *head) insert(member string) edit {
	if !h.empty {
		member += ","
	}
	return edit{span{h.open, h.open}, member}
}

// splice applies edits, which are in order and do not overlap.
func splice(body []byte, edits []edit) []byte {
	size := len(body)
	for _, e := range edits {
		size += len(e.text) - (e.end - e.start)
	}
	out, at := make([]byte, 0, size), 0
	for _, e := range edits {
		out = append(append(out, body[at:e.start]...), e.text...)
		at = e.end
	}
	return append(out, body[at:]...)
}
