package upstream_test

import (
	"bufio"
	"io"
	"strings"
	"testing"

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
