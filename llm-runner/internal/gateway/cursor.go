package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may be nested; encoding/json refuses beyond the same depth.
const maxDepth = 10000

// A cursor walks over one JSON text without building anything from it: no allocation, one pass, every byte checked. It
// accepts what encoding/json accepts. After the first fault it stands still: value returns an empty span, enter and next
// return false, and fault says what is wrong and where.
//
// An object is read as
//
//	for more := c.enter('{'); more; more = c.next('}') {
//		key := c.key()
//		... c.value()
//	}
//
// and an array likewise, without the key.
type cursor struct {
	text  []byte
	at    int // of the next byte
	depth int
	wrong string // what was expected at at; "" while all is well
}

// A span is the bytes [start, end) of a text. The zero span means "not there".
type span struct{ start, end int }

func (s span) of(text []byte) []byte { return text[s.start:s.end] }

// A syntaxError says where a text stops being JSON.
type syntaxError struct {
	offset int // bytes before the fault
	wrong  string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("not valid JSON at byte %d: %s", e.offset, e.wrong)
}

// fault returns what is wrong, or nil.
func (c *cursor) fault() error {
	if c.wrong == "" {
		return nil
	}
	return &syntaxError{min(c.at, len(c.text)), c.wrong}
}

func (c *cursor) fail(wrong string) {
	if c.wrong == "" {
		c.wrong = wrong
		if c.at >= len(c.text) {
			c.wrong = "the text ends too early"
		}
	}
}

// peek returns the first byte of the next token, or 0 at the end and after a fault.
func (c *cursor) peek() byte {
	if c.wrong != "" {
		return 0
	}
	for c.at < len(c.text) {
		switch b := c.text[c.at]; b {
		case ' ', '\n', '\t', '\r':
			c.at++
		default:
			return b
		}
	}
	return 0
}

// enter steps into an object or array and says whether it has a first element.
func (c *cursor) enter(open byte) bool {
	if c.peek() != open {
		c.fail("'" + string(rune(open)) + "' is expected")
		return false
	}
	if c.depth++; c.depth > maxDepth {
		c.fail("nested too deep")
		return false
	}
	c.at++
	if c.peek() == open+2 { // '{' and '}', '[' and ']' are two apart
		c.at++
		c.depth--
		return false
	}
	return c.wrong == ""
}

// next steps over what stands behind an element and says whether another follows.
func (c *cursor) next(end byte) bool {
	switch c.peek() {
	case ',':
		c.at++
		return true
	case end:
		c.at++
		c.depth--
	default:
		c.fail("',' or '" + string(rune(end)) + "' is expected")
	}
	return false
}

// key reads a member's name and the colon behind it. The name comes as it is written, without its quotes.
func (c *cursor) key() []byte {
	if c.peek() != '"' {
		c.fail("a member's name is expected")
		return nil
	}
	s := c.quoted()
	if c.peek() != ':' {
		c.fail("':' is expected")
		return nil
	}
	c.at++
	return c.text[s.start+1 : s.end-1]
}

// named compares a name as key returns it with a plain word.
func named(key []byte, word string) bool {
	if string(key) == word {
		return true
	}
	return bytes.IndexByte(key, '\\') >= 0 && unquote(key) == word
}

// end fails unless nothing but white space is left.
func (c *cursor) end() {
	if c.peek() != 0 || c.wrong == "" && c.at < len(c.text) {
		c.fail("nothing is expected behind the value")
	}
}

// value steps over a whole value and returns where it stood.
func (c *cursor) value() span {
	first := c.peek()
	start := c.at
	switch first {
	case '"':
		return c.quoted()
	case '{':
		for more := c.enter('{'); more; more = c.next('}') {
			c.key()
			c.value()
		}
	case '[':
		for more := c.enter('['); more; more = c.next(']') {
			c.value()
		}
	case 't':
		c.literal("true")
	case 'f':
		c.literal("false")
	case 'n':
		c.literal("null")
	default:
		if first != '-' && !digit(first) {
			c.fail("a value is expected")
			break
		}
		c.number()
	}
	if c.wrong != "" {
		return span{}
	}
	return span{start, c.at}
}

func (c *cursor) literal(word string) {
	for i := range len(word) {
		if c.at >= len(c.text) || c.text[c.at] != word[i] {
			c.fail(word + " is expected")
			return
		}
		c.at++
	}
}

func digit(b byte) bool { return '0' <= b && b <= '9' }

func (c *cursor) number() {
	if c.text[c.at] == '-' {
		c.at++
	}
	if c.at < len(c.text) && c.text[c.at] == '0' {
		c.at++
	} else {
		c.digits()
	}
	if c.at < len(c.text) && c.text[c.at] == '.' {
		c.at++
		c.digits()
	}
	if c.at < len(c.text) && c.text[c.at]|0x20 == 'e' {
		c.at++
		if c.at < len(c.text) && (c.text[c.at] == '+' || c.text[c.at] == '-') {
			c.at++
		}
		c.digits()
	}
}

func (c *cursor) digits() {
	begin := c.at
	for c.at < len(c.text) && digit(c.text[c.at]) {
		c.at++
	}
	if c.at == begin {
		c.fail("a digit is expected")
	}
}

// quoted steps over a string, quotes included. The next byte is its opening quote.
func (c *cursor) quoted() span {
	start, b := c.at, c.text
	for i := skipPlain(b, c.at+1); i < len(b); i = skipPlain(b, i) {
		switch {
		case b[i] == '"':
			c.at = i + 1
			return span{start, c.at}
		case b[i] < ' ':
			c.at = i
			c.fail("control characters must be escaped in strings")
			return span{}
		case i+1 < len(b) && escapes[b[i+1]]:
			i += 2
		case i+5 < len(b) && b[i+1] == 'u' && hex(b[i+2]) && hex(b[i+3]) && hex(b[i+4]) && hex(b[i+5]):
			i += 6
		default:
			c.at = i
			c.fail("this is no escape sequence")
			return span{}
		}
	}
	c.at = len(b)
	c.fail("")
	return span{}
}

// escapes are the bytes that may stand behind a backslash by themselves.
var escapes = [256]bool{'"': true, '\\': true, '/': true, 'b': true, 'f': true, 'n': true, 'r': true, 't': true}

// skipPlain returns the index of the first byte from i on that is a quote, a backslash or a control character; len(b) if
// there is none. It looks at eight bytes at a time (graphics.stanford.edu/~seander/bithacks.html#ZeroInWord), because
// images make megabytes of strings.
func skipPlain(b []byte, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		found := ((w - ones*' ') &^ w) | ((quote - ones) &^ quote) | ((slash - ones) &^ slash)
		if found &= tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8 // the lowest hit is exact; only those above one may be false
		}
	}
	for ; i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' '; i++ {
	}
	return i
}

func hex(b byte) bool { return digit(b) || 'a' <= b|0x20 && b|0x20 <= 'f' }

// unquote decodes the inside of a string.
func unquote(inside []byte) string {
	if bytes.IndexByte(inside, '\\') < 0 && utf8.Valid(inside) {
		return string(inside)
	}
	var s string
	quoted := make([]byte, 0, len(inside)+2)
	quoted = append(append(append(quoted, '"'), inside...), '"')
	_ = json.Unmarshal(quoted, &s) // the cursor has checked it
	return s
}

// integer reads a value that should be a whole number; ok is false for anything else, which is stepped over.
func (c *cursor) integer() (n int64, ok bool) {
	s := c.value()
	text := s.of(c.text)
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	for _, b := range text {
		if !digit(b) {
			return 0, false
		}
		n = n*10 + int64(b-'0')
	}
	return n, true
}

// null reads a value and says whether it is null.
func (c *cursor) null() bool {
	s := c.value()
	return string(s.of(c.text)) == "null"
}
