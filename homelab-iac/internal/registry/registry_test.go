package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for name, want := range map[string][2]string{
		"postgres":                  {"registry-1.docker.io", "library/postgres"},
		"gitea/gitea":               {"registry-1.docker.io", "gitea/gitea"},
		"docker.io/gitea/gitea":     {"registry-1.docker.io", "gitea/gitea"},
		"ghcr.io/a/b":               {"ghcr.io", "a/b"},
		"localhost:5000/a":          {"localhost:5000", "a"},
		"registry.gitlab.com/a/b/c": {"registry.gitlab.com", "a/b/c"},
	} {
		host, repository := Split(name)
		if got := [2]string{host, repository}; got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTheRegistryIsAskedAndNothingIsGuessed(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if q := r.URL.Query(); q.Get("service") != "s" || q.Get("scope") != "repository:a/b:pull" {
				w.WriteHeader(400)
				return
			}
			fmt.Fprint(w, `{"token":"t"}`)
		case r.Header.Get("Authorization") != "Bearer t":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+srv.URL+`/token",service="s",scope="repository:a/b:pull"`)
			w.WriteHeader(401)
		case r.URL.Path == "/v2/a/b/manifests/1.2" && r.Method == "HEAD" && strings.HasPrefix(r.Header.Get("Accept"), "application/vnd.oci.image.index"):
			w.Header().Set("Docker-Content-Digest", digest)
		case r.URL.Path == "/v2/a/b/manifests/silent":
		default:
			w.WriteHeader(404)
		}
	}))
	defer srv.Close()
	name := strings.TrimPrefix(srv.URL, "http://") + "/a/b"
	c := Client{Scheme: "http"}
	if got, err := c.Digest(t.Context(), name, "1.2"); err != nil || got != digest {
		t.Errorf("%s %v", got, err)
	}
	for tag, want := range map[string]string{"9.9": "no such tag", "silent": "names no digest"} {
		if got, err := c.Digest(t.Context(), name, tag); err == nil || got != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q %v", tag, got, err)
		}
	}
	basic := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
	}))
	defer basic.Close()
	if _, err := c.Digest(t.Context(), strings.TrimPrefix(basic.URL, "http://")+"/a", "1"); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Error(err)
	}
}
