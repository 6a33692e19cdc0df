package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"
)

// A way is the machines' only way out beside packages: a proxy that leads to the addresses that Options.Reach names, such as the storage
// that a restore is proved from, and to nothing else.
type way struct {
	url    string
	server *http.Server
	allow  []string // host:port
}

// openWay starts the proxy on an address with a port.
func openWay(addr string, allow []string) (*way, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open a way out: %w", err)
	}
	w := &way{url: "http://" + l.Addr().String(), allow: allow}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second}
	go w.server.Serve(l) //nolint:errcheck // it ends when it is closed
	return w, nil
}

func (w *way) close() {
	if w != nil {
		w.server.Close() //nolint:errcheck // all of it goes
	}
}

func (w *way) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	to := r.Host
	if r.Method != http.MethodConnect {
		if to = r.URL.Host; r.URL.Port() == "" {
			to = net.JoinHostPort(r.URL.Hostname(), "80")
		}
	}
	switch {
	case !slices.Contains(w.allow, to):
		http.Error(rw, "from the lab there is no way to "+to, http.StatusForbidden)
	case r.Method == http.MethodConnect:
		w.tunnel(rw, r, to)
	default:
		pass := httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.Out.Host = r.Host }} // signatures cover the host
		pass.ServeHTTP(rw, r)
	}
}

// tunnel joins two connections until one of them ends.
func (w *way) tunnel(rw http.ResponseWriter, r *http.Request, to string) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	there, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	rw.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	var both sync.WaitGroup
	both.Go(func() { io.Copy(there, buffered); there.(*net.TCPConn).CloseWrite() }) //nolint:errcheck // the other side sees the end
	both.Go(func() { io.Copy(here, there); here.(*net.TCPConn).CloseWrite() })      //nolint:errcheck // so does this one
	both.Wait()
}
