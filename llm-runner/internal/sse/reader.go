// Package sse reads and writes server-sent events as the HTML standard defines them (section 9.2), over any reader and
// writer. The reader also keeps the raw bytes of each event, so that a gateway can pass them on untouched.
package sse

import (
	"bytes"
	"errors"
	"io"
)

// MaxEvent is the size in bytes beyond which an event is refused. The OpenAI SDK's own limit is 32 MiB a line.
const MaxEvent = 32 << 20

// ErrTooLong is returned for an event larger than MaxEvent.
var ErrTooLong = errors.New("server-sent event larger than 32 MiB")

// An Event is one dispatched event, or a block of lines that dispatches nothing (comments, a lone id).
// Its slices are valid until the next call of Next.
type Event struct {
	Name []byte // the event field; empty means "message"
	ID   []byte // the id field of this event; nil where it has none
	Data []byte // the data lines, joined by \n
	Raw  []byte // every byte of the block, its closing empty line included
	// Dispatched says that the block has a data line; without one, readers of the standard ignore it.
	Dispatched bool
}

// A Reader cuts a stream into events. Line ends may be LF, CRLF or CR; a leading byte order mark is skipped.
type Reader struct {
	src   io.Reader
	buf   []byte
	start int // of the current block in buf
	end   int // of the bytes read so far
	err   error
	first bool   // the byte order mark has been looked for
	data  []byte // scratch for several data lines
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return NewReaderSize(r, 4<<10) }

// NewReaderSize returns a Reader of r that reads up to size bytes at once, and more once an event is larger. Size is at
// least 1.
func NewReaderSize(r io.Reader, size int) *Reader {
	return &Reader{src: r, buf: make([]byte, size)}
}

// Reset forgets all that the Reader has seen and has it read r, in the same buffer. Events that it returned before are
// no longer valid.
func (r *Reader) Reset(src io.Reader) {
	*r = Reader{src: src, buf: r.buf, data: r.data[:0]}
}

// Size returns the size of the buffer: that of NewReaderSize, or what an event has needed.
func (r *Reader) Size() int { return len(r.buf) + cap(r.data) }

// Next returns the next event. At the end of the stream it returns io.EOF, or io.ErrUnexpectedEOF where the stream
// stopped inside an event (the standard says to discard it; Partial still shows it).
func (r *Reader) Next() (Event, error) {
	line, seen := 0, 0 // offsets in the block: of the current line, and of what has been searched for its end
	for {
		if r.skipBOM() {
			b := r.buf[r.start:r.end]
			for {
				text, next, ok := cutLine(b, line, seen, r.err != nil)
				if !ok {
					seen = max(line, len(b)-1)
					break
				}
				if text == line {
					r.start += next
					return r.parse(b[:next]), nil
				}
				line, seen = next, next
			}
		}
		if r.err != nil {
			if r.err == io.EOF && r.start < r.end {
				return Event{}, io.ErrUnexpectedEOF
			}
			return Event{}, r.err
		}
		if err := r.fill(); err != nil {
			return Event{}, err
		}
	}
}

// cutLine finds the end of the line that begins at b[line], of which the bytes before seen hold no line end. It returns
// the end of the line's text and the begin of the next line. A CR that is the last byte so far may be half of a CRLF: it
// ends a line only at the end of the stream (atEnd).
func cutLine(b []byte, line, seen int, atEnd bool) (text, next int, ok bool) {
	lf := bytes.IndexByte(b[seen:], '\n')
	end := len(b)
	if lf >= 0 {
		lf += seen
		end = lf
	}
	if cr := bytes.IndexByte(b[seen:end], '\r'); cr >= 0 {
		cr += seen
		switch {
		case cr+1 == lf:
			return cr, cr + 2, true
		case cr+1 < len(b) || atEnd:
			return cr, cr + 1, true
		}
		return 0, 0, false
	}
	return lf, lf + 1, lf >= 0
}

// Buffered returns the number of bytes that have been read from the source and not yet returned: whole events, or the
// begin of one that is still arriving.
func (r *Reader) Buffered() int { return r.end - r.start }

// Partial returns the event that the stream broke off in, after Next has returned io.ErrUnexpectedEOF.
func (r *Reader) Partial() Event { return r.parse(r.buf[r.start:r.end]) }

func (r *Reader) skipBOM() bool {
	if r.first {
		return true
	}
	b := r.buf[r.start:r.end]
	bom := []byte("\xef\xbb\xbf")
	if len(b) < len(bom) && r.err == nil && bytes.HasPrefix(bom, b) {
		return false // cannot tell yet
	}
	if bytes.HasPrefix(b, bom) {
		r.start += len(bom)
	}
	r.first = true
	return true
}

func (r *Reader) fill() error {
	if r.start > 0 && r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.end == len(r.buf) {
		size := r.end - r.start
		if size >= MaxEvent {
			return ErrTooLong
		}
		next := r.buf
		if size > len(r.buf)/2 {
			next = make([]byte, 2*len(r.buf))
		}
		copy(next, r.buf[r.start:r.end])
		r.buf, r.start, r.end = next, 0, size
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if err != nil {
		r.err = err
	}
	return nil
}

// parse reads the fields of one block.
func (r *Reader) parse(block []byte) Event {
	ev := Event{Raw: block}
	r.data = r.data[:0]
	joined := false // ev.Data lives in r.data
	for rest := block; len(rest) > 0; {
		text, next, ok := cutLine(rest, 0, 0, true)
		if !ok {
			text, next = len(rest), len(rest)
		}
		field, value, _ := bytes.Cut(rest[:text], []byte(":"))
		rest = rest[next:]
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			switch {
			case !ev.Dispatched:
				ev.Data, ev.Dispatched = value, true
			case !joined:
				r.data = append(r.data, ev.Data...)
				joined = true
				fallthrough
			default:
				r.data = append(append(r.data, '\n'), value...)
				ev.Data = r.data
			}
		case "event":
			ev.Name = value
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				ev.ID = value
			}
		}
	}
	return ev
}
