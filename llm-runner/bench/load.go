package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A workload is one way to put a contestant to work.
type workload struct {
	name        string
	stream      bool
	concurrency int
	requests    int           // at most, for all clients together; 0: as many as fit
	limit       time.Duration // at most
}

// A sample is what one slice of load on one contestant showed.
type sample struct {
	whole, first []time.Duration // of the requests that were answered completely
	broken       int
	problem      error // of the first broken one
	elapsed      time.Duration
}

func (s *sample) rate() float64 { return float64(len(s.whole)) / s.elapsed.Seconds() }

// run puts w's clients to work on c and waits for them.
func (w workload) run(c *contestant) *sample {
	var mu sync.Mutex
	var all sample
	left := w.requests
	take := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return w.requests == 0 || left >= 0
	}
	started := time.Now()
	var clients sync.WaitGroup
	for range w.concurrency {
		clients.Go(func() {
			client := newClient(c, w.stream)
			defer client.close()
			var mine sample
			for time.Since(started) < w.limit && take() {
				first, whole, err := client.ask()
				if err != nil {
					mine.broken++
					mine.problem = err
					continue
				}
				mine.first, mine.whole = append(mine.first, first), append(mine.whole, whole)
			}
			mu.Lock()
			defer mu.Unlock()
			all.first, all.whole = append(all.first, mine.first...), append(all.whole, mine.whole...)
			all.broken += mine.broken
			if all.problem == nil {
				all.problem = mine.problem
			}
		})
	}
	clients.Wait()
	all.elapsed = time.Since(started)
	return &all
}

// A client asks one question after the other on one connection. It is written on the bare connection, so that it takes
// little of the processor that it shares with what it measures.
type client struct {
	address string
	request []byte
	stream  bool
	conn    net.Conn
	in      *bufio.Reader
	body    []byte
}

// patience is how long one answer may take.
const patience = 10 * time.Second

func newClient(c *contestant, stream bool) *client {
	body := fmt.Sprintf(question, model, stream)
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: application/json\r\n"+
		"Authorization: Bearer none\r\nContent-Length: %d\r\n", c.path, c.address, len(body))
	for _, h := range c.header {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return &client{address: c.address, request: b.Bytes(), stream: stream}
}

// question is an ordinary one of about a thousand bytes.
var question = `{"model":%q,"stream":%v,"temperature":0.7,"max_tokens":256,"messages":[{"role":"system","content":"` +
	strings.Repeat("You answer questions about a small house with many machines. ", 8) +
	`"},{"role":"user","content":"What is a good gateway like?"},{"role":"assistant","content":"That depends on whom you ask."},` +
	`{"role":"user","content":"` + strings.Repeat("I ask you, and I would like a short answer. ", 6) + `"}]}`

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// ask returns the times to the first byte of the answer's body and to its end. An answer that is not complete and right is
// an error.
func (c *client) ask() (first, whole time.Duration, err error) {
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.address, patience); err != nil {
			return 0, 0, err
		}
		c.in = bufio.NewReaderSize(c.conn, 16<<10)
	}
	started := time.Now()
	status, reuse, err := c.exchange(started, &first)
	whole = time.Since(started)
	if err != nil || !reuse {
		c.close()
	}
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", status, c.body)
	}
	if err == nil && c.stream {
		err = checkStream(c.body)
	} else if err == nil {
		err = checkWhole(c.body)
	}
	return first, whole, err
}

func (c *client) exchange(started time.Time, first *time.Duration) (status int, reuse bool, err error) {
	if err := c.conn.SetDeadline(started.Add(patience)); err != nil {
		return 0, false, err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, false, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	c.body = c.body[:0]
	for {
		if cap(c.body)-len(c.body) < 4096 {
			c.body = append(c.body, make([]byte, 8192)...)[:len(c.body)]
		}
		n, err := resp.Body.Read(c.body[len(c.body):cap(c.body)])
		if n > 0 && *first == 0 {
			*first = time.Since(started)
		}
		c.body = c.body[:len(c.body)+n]
		if errors.Is(err, io.EOF) {
			return resp.StatusCode, !resp.Close, nil
		}
		if err != nil {
			return 0, false, err
		}
	}
}

// checkWhole finds out whether a JSON answer is all there.
func checkWhole(body []byte) error {
	var got struct {
		Choices []struct {
			Message struct{ Content string }
			Finish  string `json:"finish_reason"`
		}
		Usage struct {
			Total int `json:"total_tokens"`
		}
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return fmt.Errorf("broken JSON: %w", err)
	}
	if len(got.Choices) != 1 || got.Choices[0].Message.Content != text || got.Choices[0].Finish != "stop" || got.Usage.Total != 104 {
		return fmt.Errorf("a different answer: %.300s", body)
	}
	return nil
}

// checkStream finds out whether a stream is all there: every piece of the text, in order, the reason of its end, and the
// end. Gateways may render events in their own way; the text needs no escapes, so that it can be found without parsing.
func checkStream(body []byte) error {
	rest := text
	stopped, done := false, false
	for line := range bytes.Lines(body) {
		data, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data:"))
		if !ok {
			continue
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			done = true
			continue
		}
		piece, ok := strings.CutPrefix(rest, field(data, "content"))
		if !ok {
			return fmt.Errorf("a different piece: %.300s", data)
		}
		rest = piece
		stopped = stopped || field(data, "finish_reason") == "stop"
	}
	if rest != "" || !stopped || !done {
		return fmt.Errorf("an incomplete stream: %d bytes of text missing, told the reason %v, ended %v", len(rest), stopped, done)
	}
	return nil
}

// field returns the string value of a JSON member by its name, wherever it is; "" where there is none.
func field(data []byte, name string) string {
	_, value, ok := bytes.Cut(data, []byte(`"`+name+`":`))
	if !ok {
		return ""
	}
	value, ok = bytes.CutPrefix(bytes.TrimLeft(value, " "), []byte(`"`))
	if !ok {
		return ""
	}
	value, _, _ = bytes.Cut(value, []byte(`"`))
	return string(value)
}
