package sse

import (
	"bytes"
	"io"
	"strconv"
)

// A Writer writes events. It does not flush: the caller knows when the reader should see them.
type Writer struct {
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Data writes an event of data alone.
func (w *Writer) Data(data []byte) error { return w.Event("", -1, data) }

// Event writes an event: name "" leaves the event field out, id < 0 the id field. Line ends inside data become several
// data lines.
func (w *Writer) Event(name string, id int64, data []byte) error {
	b := w.buf[:0]
	if name != "" {
		b = append(append(append(b, "event: "...), name...), '\n')
	}
	if id >= 0 {
		b = append(strconv.AppendInt(append(b, "id: "...), id, 10), '\n')
	}
	for {
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			break
		}
		b = append(append(append(b, "data: "...), data[:i]...), '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
	b = append(append(append(b, "data: "...), data...), "\n\n"...)
	w.buf = b
	_, err := w.w.Write(b)
	return err
}

// Comment writes a line that readers ignore and proxies count as traffic.
func (w *Writer) Comment(text string) error {
	_, err := io.WriteString(w.w, ": "+text+"\n\n")
	return err
}
