package gateway

import (
	"bytes"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A watch reads along while chunks of an answer pass by: how far it is, and what it cost.
type watch struct {
	usage    llm.Usage // unknown until told
	seen     uint64    // bit i: choice i has begun
	finished uint64    // bit i: choice i has said why it ended
	choices  int       // elements of the last object's choices
	counted  bool      // the last object told usage
	failed   bool      // the last object is an error
	broken   bool      // the last object says that the answer was given up (finish_reason "error", x_groq.error)
}

// whole says that every choice that began has come to its proper end.
func (w *watch) whole() bool { return w.seen != 0 && w.seen&^w.finished == 0 }

// object reads one chunk of a stream, or one whole answer: they have the same outline.
func (w *watch) object(text []byte) error {
	w.choices, w.counted, w.failed, w.broken = 0, false, false, false
	c := cursor{text: text}
	for more := c.enter('{'); more; more = c.next('}') {
		switch key := c.key(); {
		case string(key) == "choices":
			if c.peek() == '[' {
				w.readChoices(&c)
			} else {
				c.value()
			}
		case string(key) == "usage":
			w.readUsage(&c)
		case string(key) == "x_groq" && c.peek() == '{':
			for more := c.enter('{'); more; more = c.next('}') {
				switch key := c.key(); {
				case string(key) == "usage":
					w.readUsage(&c)
				case string(key) == "error":
					w.broken = !c.null()
				default:
					c.value()
				}
			}
		case string(key) == "error":
			w.failed = !c.null()
		default:
			c.value()
		}
	}
	c.end()
	return c.fault()
}

func (w *watch) readChoices(c *cursor) {
	for more := c.enter('['); more; more = c.next(']') {
		w.choices++
		if c.peek() != '{' {
			c.value()
			continue
		}
		index, ended := int64(w.choices-1), false
		for more := c.enter('{'); more; more = c.next('}') {
			switch key := c.key(); {
			case string(key) == "index":
				if n, ok := c.integer(); ok {
					index = n
				}
			case string(key) == "finish_reason":
				why := c.value()
				ended = why.end-why.start > 2 && c.text[why.start] == '"'
				w.broken = w.broken || string(why.of(c.text)) == `"error"`
			default:
				c.value()
			}
		}
		bit := uint64(1) << min(index, 63)
		w.seen |= bit
		if ended {
			w.finished |= bit
		}
	}
}

// readUsage reads a usage object; counts that it does not tell keep what an earlier one told.
func (w *watch) readUsage(c *cursor) {
	if c.peek() != '{' {
		c.value()
		return
	}
	w.counted = true
	for more := c.enter('{'); more; more = c.next('}') {
		switch key := c.key(); {
		case string(key) == "prompt_tokens":
			count(c, &w.usage.Input)
		case string(key) == "completion_tokens":
			count(c, &w.usage.Output)
		case string(key) == "prompt_tokens_details":
			detail(c, "cached_tokens", &w.usage.CachedInput)
		case string(key) == "completion_tokens_details":
			detail(c, "reasoning_tokens", &w.usage.Thinking)
		default:
			c.value()
		}
	}
}

func detail(c *cursor, name string, to *llm.Count) {
	if c.peek() != '{' {
		c.value()
		return
	}
	for more := c.enter('{'); more; more = c.next('}') {
		if string(c.key()) == name {
			count(c, to)
		} else {
			c.value()
		}
	}
}

func count(c *cursor, to *llm.Count) {
	if n, ok := c.integer(); ok {
		*to = llm.Known(n)
	}
}

// isDone says that data is the mark that ends a stream; some servers leave blanks behind it.
func isDone(data []byte) bool {
	return string(bytes.TrimSpace(data)) == "[DONE]"
}
