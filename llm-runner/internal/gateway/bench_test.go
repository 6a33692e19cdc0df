package gateway_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/route"
)

// BenchmarkChat compares three ways to the same upstream over loopback: straight, through the standard library's bare
// reverse proxy, and through the gateway with routing and a ledger on disk. The aim: at most 1.5 times the latency that
// the bare proxy adds (c1), at least 0.7 times its throughput (c64).
func BenchmarkChat(b *testing.B) {
	events := strings.SplitAfter(role+strings.Repeat(hello, 64)+stop+counts+done, "\n\n")
	body := answer + strings.Repeat(" ", 2<<10)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(in), `"stream":true`) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i, ev := range events {
			_, _ = io.WriteString(w, ev)
			if i%8 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	}))
	defer up.Close()
	target, _ := url.Parse(up.URL)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 256, 256
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.URL.Path = "/chat/completions" },
		Transport: transport, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without this the proxy breaks some of the fast streams: the answer begins while the transport still reads the
		// request, and net/http closes the request's body at the first byte of an answer (https://pkg.go.dev/net/http#ResponseController.EnableFullDuplex).
		in, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(in))
		proxy.ServeHTTP(w, r)
	}))
	defer bare.Close()
	ours := openLab(b, []route.Member{remote("up", up.URL)})

	prompt := strings.Repeat("Why is the sky blue? ", 50)
	for kind, stream := range map[string]string{"whole": "false", "stream": "true"} {
		ask := `{"model":"x","messages":[{"role":"user","content":"` + prompt + `"}],"stream":` + stream + `,"stream_options":{"include_usage":true}}`
		for _, way := range []struct{ name, url string }{{"direct", up.URL + "/chat/completions"}, {"proxy", bare.URL + chat}, {"ours", ours.url + chat}} {
			client := &http.Client{Transport: transport.Clone()}
			once := func() {
				resp, err := client.Post(way.url, "application/json", strings.NewReader(ask))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					b.Fatal(resp.Status, err)
				}
				resp.Body.Close()
			}
			b.Run(kind+"/c1/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				before := cpu()
				for b.Loop() {
					once()
				}
				b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
			})
			b.Run(kind+"/c64/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				before := cpu()
				b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						once()
					}
				})
				b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
			})
		}
	}
}

// cpu is the processor time of this process, client and upstream included: unlike the clock it hardly minds what else the
// machine has to do.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
