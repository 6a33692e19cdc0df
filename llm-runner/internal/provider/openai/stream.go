package openai

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/sse"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// read turns the body of an answer into events, the Finish last. It is a stream of server-sent events, or, from servers that
// do not stream, a completion in one piece; which of them, its first byte tells better than its Content-Type.
func read(resp *http.Response) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		src := bufio.NewReader(resp.Body)
		first, err := upstream.Peek(src)
		switch {
		case err == nil && first == '{':
			readWhole(src, yield)
		case err == nil && (first == '<' || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")):
			yield(llm.Event{}, upstream.ErrPage)
		default:
			readStream(src, yield)
		}
	}
}

func readWhole(src io.Reader, yield func(llm.Event, error) bool) {
	b, err := io.ReadAll(io.LimitReader(src, MaxAnswer))
	var d wire.Decoder
	if err == nil {
		var events []llm.Event
		events, err = d.Add(b)
		for _, ev := range events {
			if !yield(ev, nil) {
				return
			}
		}
		if err == nil && d.Finish() == "" {
			err = errors.New("the answer does not say that it is finished")
		}
	}
	if err != nil {
		yield(llm.Event{}, err)
		return
	}
	yield(llm.Event{Finish: d.Finish()}, nil)
}

func readStream(src io.Reader, yield func(llm.Event, error) bool) {
	var d wire.Decoder
	r := sse.NewReader(src)
	for last := false; !last; {
		in, err := r.Next()
		if err == io.ErrUnexpectedEOF { // a last event without its empty line, which some servers send, or half of one
			last = true
			if in = r.Partial(); !complete(in.Data) {
				break
			}
			err = nil
		}
		if err != nil {
			end(&d, err, yield)
			return
		}
		if len(in.Data) == 0 {
			continue
		}
		if string(bytes.TrimSpace(in.Data)) == wire.Done {
			break
		}
		events, err := d.Add(in.Data)
		for _, ev := range events {
			if !yield(ev, nil) {
				return
			}
		}
		if err != nil {
			yield(llm.Event{}, err)
			return
		}
	}
	end(&d, io.EOF, yield)
}

// complete says whether the data of an event whose end never came can be believed.
func complete(data []byte) bool {
	data = bytes.TrimSpace(data)
	return string(data) == wire.Done || len(data) > 1 && data[0] == '{' && data[len(data)-1] == '}'
}

// end finishes the stream. Once the answer has said that it is finished, it is whole, however the connection ended.
func end(d *wire.Decoder, err error, yield func(llm.Event, error) bool) {
	var gone *llm.Error
	switch {
	case d.Finish() != "" && !(errors.As(err, &gone) && gone.Kind == llm.Cancelled):
		yield(llm.Event{Finish: d.Finish()}, nil)
	case err == io.EOF:
		yield(llm.Event{}, upstream.Broken(errors.New("it does not say why it ended")))
	default:
		yield(llm.Event{}, upstream.Broken(err))
	}
}
