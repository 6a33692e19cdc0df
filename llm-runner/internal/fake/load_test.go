package fake_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// BenchmarkOverHTTP measures the fake and a client together, over loopback.
func BenchmarkOverHTTP(b *testing.B) {
	srv, _ := serveAtNoon(b, "openai", script.Script{Reply: []script.Rule{{Text: "one two three four five six seven eight nine ten"}}})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(srv.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
