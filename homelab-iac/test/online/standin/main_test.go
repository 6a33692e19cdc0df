package main

import (
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// get asks a page and returns its status and body.
func get(t *testing.T, page http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSearchRefusesFormatsThatItsSettingsDoNotList(t *testing.T) {
	both := search(write(t, "settings.yml", "use_default_settings: true\nsearch:\n  formats: [html, json]\n"))
	none := search(write(t, "settings.yml", "use_default_settings: true\n"))
	for _, c := range []struct {
		what string
		page http.HandlerFunc
		path string
		want int
	}{
		{"json that is listed", both, "/search?q=x&format=json", 200},
		{"json by the settings that SearXNG comes with", none, "/search?q=x&format=json", 403},
		{"a page", none, "/search?q=x", 200},
		{"a format that nobody knows is a page", none, "/search?q=x&format=yaml", 200},
		{"rss that is not listed", both, "/search?q=x&format=rss", 403},
		{"no question", both, "/search?format=json", 400},
	} {
		status, body := get(t, c.page, c.path)
		if status != c.want {
			t.Errorf("%s: %d %s", c.what, status, body)
		}
		if status == 200 && strings.Contains(c.path, "json") {
			var got struct{ Results []struct{ URL, Title string } }
			if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Results) != 1 {
				t.Errorf("%s: %v %s", c.what, err, body)
			}
		}
	}
}

func TestWhatNeedsAnotherAnswersOnlyWhileThatListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page := after(says("OK"), l.Addr().String())
	if status, _ := get(t, page, "/"); status != 200 {
		t.Error(status)
	}
	l.Close()
	if status, _ := get(t, page, "/"); status != 503 {
		t.Error(status)
	}
}

func TestTheTunnelsNamesAreAskedAsCloudflaredWould(t *testing.T) {
	var host string
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		w.WriteHeader(http.StatusSeeOther)
	}))
	defer origin.Close()
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: origin.Certificate().Raw})))
	config := "tunnel: x\ningress:\n  - hostname: runner.example.org\n    service: " + origin.URL + "\n    originRequest: {originServerName: example.com, caPool: " + ca + "}\n  - service: http_status:404\n"
	if status, body := get(t, ingress(write(t, "config.yml", config)), "/ingress"); status != 200 || host != "runner.example.org" || !strings.Contains(body, "leads to") {
		t.Errorf("%d %q %s", status, host, body)
	}
	wrong := strings.Replace(config, "example.com", "runner.invalid", 1) // the certificate is not for that name
	if status, body := get(t, ingress(write(t, "config.yml", wrong)), "/ingress"); status != 503 || !strings.Contains(body, "certificate") {
		t.Errorf("%d %s", status, body)
	}
}

func TestEveryAnswerNamesItself(t *testing.T) {
	for name := range parts {
		w := httptest.NewRecorder()
		for path := range parts[name].pages {
			handler(name).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		}
		if w.Header().Get("X-Stand-In") != name {
			t.Errorf("%s answers as %q", name, w.Header().Get("X-Stand-In"))
		}
	}
}
