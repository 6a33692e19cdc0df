package ollama

import (
	"bytes"
	"testing"
	"testing/iotest"

	"home.arpa/lab/llm-runner/internal/llm"
)

func FuzzStream(f *testing.F) {
	f.Add([]byte(`{"message":{"content":"a","tool_calls":[{"function":{"name":"f","arguments":{}}}]}}` + "\n" + `{"done":true,"eval_count":1}`))
	f.Add([]byte(`{"error":"x"}` + "\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := llm.Collect(read(bytes.NewReader(b), 0))
		split, splitErr := llm.Collect(read(iotest.OneByteReader(bytes.NewReader(b)), 0))
		if (err == nil) != (splitErr == nil) || whole.Message.Text() != split.Message.Text() || whole.Finish != split.Finish {
			t.Fatalf("whole %+v, %v; byte by byte %+v, %v", whole, err, split, splitErr)
		}
		if (err == nil) != (whole.Finish != "") {
			t.Fatalf("finish %q with error %v", whole.Finish, err)
		}
	})
}
