package upstream_test

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

func TestPeekSeesTheFirstByteThatCounts(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":1}`:            `{"a":1}`,
		"\xef\xbb\xbf\r\n [": "[",
		"data: x\n\n":        "data: x\n\n",
	} {
		src := bufio.NewReader(strings.NewReader(body))
		b, err := upstream.Peek(src)
		rest, _ := io.ReadAll(src)
		if err != nil || b != want[0] || string(rest) != want {
			t.Errorf("%q: got %q, %v, then %q", body, b, err, rest)
		}
	}
	if _, err := upstream.Peek(bufio.NewReader(strings.NewReader(" \n"))); err != io.EOF {
		t.Errorf("nothing but space: %v", err)
	}
}

func TestCheckNamesAllFaults(t *testing.T) {
	if err := upstream.Check("https://api.example.org", "x", 0); err != nil {
		t.Error(err)
	}
	for _, base := range []string{"", "api.example.org", "ftp://api.example.org", "http://", "http://a b"} {
		err := upstream.Check(base, "https://example.org", -1)
		if err == nil || !strings.Contains(err.Error(), "https://example.org") || !strings.Contains(err.Error(), "timeout:") {
			t.Errorf("%q: got %v, want both faults and the cure", base, err)
		}
	}
}

func TestFailedKeepsTheErrorThatSaysMore(t *testing.T) {
	c := upstream.New("cloud", "http://127.0.0.1", nil, 0)
	inner := &llm.Error{Kind: llm.Cancelled, Message: "cancelled by the caller"}
	if e := c.Failed(upstream.Broken(inner), "m", true); e != inner || e.Provider != "cloud" || e.Model != "m" || !e.Started {
		t.Errorf("got %+v", e)
	}
	e := c.Failed(upstream.Broken(io.ErrUnexpectedEOF), "m", false)
	if e.Kind != llm.Unavailable || e.Started || !errors.Is(e, io.ErrUnexpectedEOF) || !strings.Contains(e.Error(), "broke off") {
		t.Errorf("got %+v", e)
	}
}
