package sse_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"home.arpa/lab/llm-runner/internal/sse"
)

type event struct{ name, id, data string }

func readAll(t *testing.T, src io.Reader) (events []event, raw string, err error) {
	t.Helper()
	r := sse.NewReader(src)
	for {
		ev, err := r.Next()
		if err != nil {
			return events, raw, err
		}
		raw += string(ev.Raw)
		if ev.Dispatched {
			events = append(events, event{string(ev.Name), string(ev.ID), string(ev.Data)})
		}
	}
}

var framings = []struct {
	name, stream string
	want         []event
	end          error
}{
	{"line feeds", "data: a\n\ndata: b\n\n", []event{{data: "a"}, {data: "b"}}, io.EOF},
	{"carriage returns and line feeds", "data: a\r\n\r\ndata: b\r\n\r\n", []event{{data: "a"}, {data: "b"}}, io.EOF},
	{"carriage returns alone", "data: a\r\rdata: b\r\r", []event{{data: "a"}, {data: "b"}}, io.EOF},
	{"mixed line ends", "data: a\r\n\ndata: b\n\r\n", []event{{data: "a"}, {data: "b"}}, io.EOF},
	{"no space after the colon", "data:a\n\ndata:  b\n\n", []event{{data: "a"}, {data: " b"}}, io.EOF},
	{"several data lines", "data: a\ndata: b\ndata:\ndata: c\n\n", []event{{data: "a\nb\n\nc"}}, io.EOF},
	{"comments", ": hello\n\n:\ndata: a\n: more\n\n", []event{{data: "a"}}, io.EOF},
	{"id, retry and event", "id: 7\nretry: 10\nevent: x\ndata: a\n\n", []event{{"x", "7", "a"}}, io.EOF},
	{"a field without a colon", "data\n\n", []event{{data: ""}}, io.EOF},
	{"an event without data is not dispatched", "event: x\n\ndata: a\n\n", []event{{data: "a"}}, io.EOF},
	{"byte order mark", "\xef\xbb\xbfdata: a\n\n", []event{{data: "a"}}, io.EOF},
	{"emoji and escapes", "data: {\"t\":\"h\u00e9 \U0001F600 \\uD83D\\uDE00\"}\n\n", []event{{data: "{\"t\":\"h\u00e9 \U0001F600 \\uD83D\\uDE00\"}"}}, io.EOF},
	{"extra empty lines", "\n\n\ndata: a\n\n\n\ndata: b\n\n", []event{{data: "a"}, {data: "b"}}, io.EOF},
	{"an unfinished event is discarded", "data: a\n\ndata: b\n", []event{{data: "a"}}, io.ErrUnexpectedEOF},
	{"an unfinished line is discarded", "data: a\n\ndata: b", []event{{data: "a"}}, io.ErrUnexpectedEOF},
	{"empty stream", "", nil, io.EOF},
}

func TestReaderFollowsTheStandard(t *testing.T) {
	for _, tt := range framings {
		t.Run(tt.name, func(t *testing.T) {
			got, raw, err := readAll(t, strings.NewReader(tt.stream))
			if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.end) {
				t.Errorf("got %q, %v\nwant %q, %v", got, err, tt.want, tt.end)
			}
			if err == io.EOF && raw != strings.TrimPrefix(tt.stream, "\xef\xbb\xbf") {
				t.Errorf("raw blocks add up to %q", raw)
			}
		})
	}
}

func TestReaderIsIndifferentToHowTheBytesArrive(t *testing.T) {
	for _, tt := range framings {
		for cut := range len(tt.stream) {
			src := io.MultiReader(strings.NewReader(tt.stream[:cut]), strings.NewReader(tt.stream[cut:]))
			if got, _, err := readAll(t, src); !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.end) {
				t.Fatalf("%s, cut at %d: got %q, %v", tt.name, cut, got, err)
			}
		}
		if got, _, _ := readAll(t, iotest.OneByteReader(strings.NewReader(tt.stream))); !reflect.DeepEqual(got, tt.want) {
			t.Fatalf("%s, byte by byte: got %q", tt.name, got)
		}
	}
}

func TestReaderTakesLargeEventsAndRefusesEndlessOnes(t *testing.T) {
	for _, size := range []int{64 << 10, 1<<20 + 1} {
		want := strings.Repeat("x", size)
		got, _, err := readAll(t, strings.NewReader("data: a\n\ndata: "+want+"\n\ndata: b\n\n"))
		if err != io.EOF || len(got) != 3 || got[1].data != want || got[2].data != "b" {
			t.Errorf("%d bytes: got %d events, %v", size, len(got), err)
		}
	}
	if _, _, err := readAll(t, io.MultiReader(strings.NewReader("data: "), endless{})); !errors.Is(err, sse.ErrTooLong) {
		t.Errorf("endless event: %v", err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestReaderShowsWhatBrokeOff(t *testing.T) {
	r := sse.NewReader(strings.NewReader("data: [DONE]"))
	if _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if got := string(r.Partial().Data); got != "[DONE]" {
		t.Errorf("partial event %q", got)
	}
}

func TestReaderPassesTheSourcesErrorOn(t *testing.T) {
	broken := errors.New("connection reset")
	_, _, err := readAll(t, io.MultiReader(strings.NewReader("data: a\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWriterIsReadBack(t *testing.T) {
	var b bytes.Buffer
	w := sse.NewWriter(&b)
	for _, err := range []error{w.Data([]byte("one")), w.Comment("waiting"), w.Event("x", 3, []byte("a\nb\r\nc\rd"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, _, _ := readAll(t, &b)
	want := []event{{data: "one"}, {"x", "3", "a\nb\nc\nd"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReader(f *testing.F) {
	for _, tt := range framings {
		f.Add([]byte(tt.stream), 3)
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole, raw, err := readAll(t, bytes.NewReader(stream))
		cut = min(max(cut, 0), len(stream))
		parts, _, _ := readAll(t, io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:])))
		if !reflect.DeepEqual(whole, parts) {
			t.Fatalf("whole %q, in parts %q", whole, parts)
		}
		if err == io.EOF && raw != strings.TrimPrefix(string(stream), "\xef\xbb\xbf") {
			t.Fatalf("raw blocks add up to %q", raw)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	stream := strings.Repeat(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" word"}}]}`+"\n\n", 1000)
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		r := sse.NewReader(strings.NewReader(stream))
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}

func TestAReaderCanBeUsedAgain(t *testing.T) {
	r := sse.NewReaderSize(strings.NewReader("\ufeffdata: a\ndata: b\n\ndata: half"), 1)
	for range 3 { // until it fails
		_, _ = r.Next()
	}
	r.Reset(strings.NewReader("\ufeffid: 1\ndata: c\n\n"))
	if r.Buffered() != 0 {
		t.Errorf("%d bytes are left from before", r.Buffered())
	}
	ev, err := r.Next()
	if err != nil || string(ev.Data) != "c" || string(ev.Raw) != "id: 1\ndata: c\n\n" {
		t.Errorf("%+v, %v", ev, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if r.Size() < 18 {
		t.Errorf("size %d cannot have held the event", r.Size())
	}
}
