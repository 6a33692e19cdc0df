package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// packages is the machines' only way to Debian's packages: an HTTP proxy that reaches the mirrors which the image names,
// and nothing else. What never changes is kept, so a second machine installs without the network.
type packages struct {
	url    string
	server *http.Server
	dir    string // the cache
	allow  func(host string) bool
	client *http.Client
}

// servePackages starts the proxy on an address.
func servePackages(addr string, allow func(string) bool) (*packages, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	if allow == nil {
		hosts := mirrors(filepath.Join(cache, "image-"+imageVersion(), "root", "etc/apt"))
		allow = func(host string) bool { return hosts[host] }
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "3142"))
	if err != nil {
		return nil, fmt.Errorf("serve packages: %w", err)
	}
	p := &packages{url: "http://" + l.Addr().String(), dir: filepath.Join(cache, "packages"), allow: allow,
		client: &http.Client{Timeout: 5 * time.Minute, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 || !allow(r.URL.Hostname()) {
				return errors.New("the mirror leads elsewhere")
			}
			return nil
		}}}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go p.server.Serve(l) //nolint:errcheck // it ends when it is closed
	return p, nil
}

func (p *packages) close() {
	if p != nil {
		p.server.Close() //nolint:errcheck // all of it goes
	}
}

var mirrorURL = regexp.MustCompile(`http://([^/\s\]]+)`)

// mirrors returns the hosts that apt's sources below a folder name.
func mirrors(etc string) map[string]bool {
	hosts := map[string]bool{}
	lists, _ := filepath.Glob(filepath.Join(etc, "sources.list*"))
	more, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	for _, file := range append(lists, more...) {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			for _, m := range mirrorURL.FindAllStringSubmatch(s.Text(), -1) {
				hosts[m[1]] = true
			}
		}
		f.Close()
	}
	return hosts
}

// lasting tells whether a file on a mirror keeps its bytes for ever under its name: packages, whose name holds the version,
// and lists by their hash.
func lasting(path string) bool {
	return (strings.Contains(path, "/pool/") || strings.Contains(path, "/by-hash/")) && !strings.Contains(path, "..")
}

func (p *packages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !r.URL.IsAbs() || r.URL.Scheme != "http" || r.Method != http.MethodGet && r.Method != http.MethodHead || !p.allow(r.URL.Hostname()) {
		http.Error(w, "this proxy leads to Debian's mirrors only", http.StatusForbidden)
		return
	}
	kept := filepath.Join(p.dir, url.PathEscape(r.URL.Path))
	if lasting(r.URL.Path) && r.Method == http.MethodGet && r.Header.Get("Range") == "" {
		if err := p.fetch(r.Context(), r.URL.String(), kept); err == nil {
			http.ServeFile(w, r, kept)
			return
		}
	}
	p.pass(w, r)
}

// pass asks the mirror and hands its answer on. What breaks before the answer began is tried twice more.
func (p *packages) pass(w http.ResponseWriter, r *http.Request) {
	var resp *http.Response
	for try := range 3 {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), nil)
		if err != nil {
			break
		}
		for _, h := range []string{"Range", "If-Range", "If-Modified-Since"} {
			if v := r.Header.Get(h); v != "" {
				out.Header.Set(h, v)
			}
		}
		if resp, err = p.client.Do(out); err == nil {
			break
		}
		select {
		case <-r.Context().Done():
		case <-time.After(time.Duration(try+1) * time.Second):
		}
	}
	if resp == nil {
		http.Error(w, "the mirror did not answer", http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for _, h := range []string{"Content-Type", "Content-Length", "Content-Range", "Last-Modified", "Accept-Ranges"} {
		if v := resp.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body) //nolint:errcheck // apt sees that it is too short
}

// fetch downloads a file into the cache unless it is there. Only what arrived whole gets its name.
func (p *packages) fetch(ctx context.Context, from, kept string) error {
	if _, err := os.Stat(kept); err == nil {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	part, err := os.CreateTemp(p.dir, "part-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	n, err := io.Copy(part, resp.Body)
	err = errors.Join(err, part.Close())
	if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	return os.Rename(part.Name(), kept)
}
