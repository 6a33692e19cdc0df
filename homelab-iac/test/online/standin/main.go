// Command standin answers in the place of services that cannot be had in the lab, each with the few answers that the homelab relies on. It
// names itself in every answer: "X-Stand-In: searxng".
//
//	standin NAME [...]    serve as NAME until a signal; what the real one would be told besides is left alone
//
// What it knows of each is from the real one's source or documentation; nothing else of them is here.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// A part is one service: where it listens, and what it answers on which path.
type part struct {
	addr  string
	pages map[string]http.HandlerFunc
}

var parts = map[string]part{
	"searxng":     {":8080", map[string]http.HandlerFunc{"/healthz": says("OK"), "/search": search("/etc/searxng/settings.yml"), "/": says("a stand-in for SearXNG")}},
	"infisical":   {":8080", map[string]http.HandlerFunc{"/api/status": after(says(`{"message":"Ok","redisConfigured":true}`), "postgres:5432", "redis:6379")}},
	"langfuse":    {":3000", map[string]http.HandlerFunc{"/api/public/health": after(says(`{"status":"OK"}`), "postgres:5432")}},
	"plex":        {":32400", map[string]http.HandlerFunc{"/identity": says(`<MediaContainer size="0" claimed="0"/>`)}},
	"portainer":   {":9000", map[string]http.HandlerFunc{"/api/system/status": says(`{"Version":"stand-in"}`)}},
	"grafana":     {"127.0.0.1:3003", map[string]http.HandlerFunc{"/api/health": says(`{"database":"ok"}`)}},
	"qdrant":      {":6333", map[string]http.HandlerFunc{"/readyz": says("all shards are ready")}},
	"gitea":       {":3000", map[string]http.HandlerFunc{"/api/healthz": after(says(`{"status":"pass"}`), "postgres:5432")}},
	"uptime-kuma": {":3001", map[string]http.HandlerFunc{"/": says("a stand-in for Uptime Kuma"), "/api/push/": says(`{"ok":true}`)}},
	"cloudflared": {"127.0.0.1:2000", map[string]http.HandlerFunc{"/ready": says(`{"status":200,"readyConnections":0}`), "/ingress": ingress("/etc/cloudflared/config.yml")}},
}

func main() {
	if len(os.Args) < 2 || parts[os.Args[1]].addr == "" {
		fmt.Fprintln(os.Stderr, "standin NAME")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, name string) error {
	s := &http.Server{Addr: parts[name].addr, Handler: handler(name), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		s.Close() //nolint:errcheck // it ends
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(name string) http.Handler {
	mux := http.NewServeMux()
	for path, page := range parts[name].pages {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Stand-In", name)
			page(w, r)
		})
	}
	return mux
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
}

// after answers only while something listens at each of the addresses, as a service does that needs them.
func after(page http.HandlerFunc, needs ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, n := range needs {
			c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(r.Context(), "tcp", n)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			c.Close()
		}
		page(w, r)
	}
}

// search answers as SearXNG's /search does (searx/webapp.py): an unknown format is html, a known one that search.formats of the settings does
// not list is refused with 403 and a page, without a question there is nothing.
func search(settings string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var s struct {
			Search struct {
				Formats []string `yaml:"formats"`
			} `yaml:"search"`
		}
		s.Search.Formats = []string{"html"} // what SearXNG's own settings say
		text, err := os.ReadFile(settings)
		if err == nil {
			err = yaml.Unmarshal(text, &s)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		format := r.FormValue("format")
		if !slices.Contains([]string{"html", "csv", "json", "rss"}, format) {
			format = "html"
		}
		query := r.FormValue("q")
		switch {
		case !slices.Contains(s.Search.Formats, format):
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(w, "<!doctype html>\n<title>403 Forbidden</title>\n<h1>Forbidden</h1>")
		case query == "" && format != "html":
			http.Error(w, "No query", http.StatusBadRequest)
		case format == "json":
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck // who asked has gone
				"query": query, "number_of_results": 0, "answers": []any{}, "corrections": []any{}, "infoboxes": []any{}, "suggestions": []any{}, "unresponsive_engines": []any{},
				"results": []any{map[string]any{"url": "https://example.org/", "title": "A stand-in for SearXNG", "content": query, "engine": "stand-in", "score": 1.0, "category": "general"}},
			})
		default:
			fmt.Fprintln(w, "<!doctype html>\n<title>a stand-in for SearXNG</title>")
		}
	}
}

// ingress reads cloudflared's configuration and asks each service that it names in the way cloudflared would: with the public name as
// Host, and the name that originServerName asks for in TLS. No connection to Cloudflare is made, and none is spoken of.
func ingress(config string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asked, err := askIngress(r.Context(), config)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "a stand-in for cloudflared: %s\n", strings.Join(asked, ", "))
	}
}

func askIngress(ctx context.Context, config string) (asked []string, err error) {
	var c struct {
		Ingress []struct {
			Hostname string `yaml:"hostname"`
			Service  string `yaml:"service"`
			Origin   struct {
				ServerName string `yaml:"originServerName"`
				CA         string `yaml:"caPool"`
			} `yaml:"originRequest"`
		} `yaml:"ingress"`
	}
	text, err := os.ReadFile(config)
	if err == nil {
		err = yaml.Unmarshal(text, &c)
	}
	if err != nil {
		return nil, err
	}
	for _, rule := range c.Ingress {
		if rule.Hostname == "" {
			continue // the last rule has none: http_status:404
		}
		u, err := url.Parse(rule.Service)
		if err != nil {
			return nil, err
		}
		pem, err := os.ReadFile(rule.Origin.CA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: rule.Origin.ServerName, RootCAs: roots}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Host = rule.Hostname
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		resp.Body.Close()
		if resp.StatusCode >= http.StatusInternalServerError {
			return nil, fmt.Errorf("%s answers for %s with %s", rule.Service, rule.Hostname, resp.Status)
		}
		asked = append(asked, fmt.Sprintf("%s leads to %s (%d)", rule.Hostname, rule.Service, resp.StatusCode))
	}
	return asked, nil
}
