package guard

import (
	"errors"
	"net"
	"net/http"
	"strings"
)

// canonical returns a host as it is compared: lower case, without brackets and final dot.
func canonical(host string) string {
	if a := addr(host); a.IsValid() {
		return a.String()
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// knownHost says that a Host header names this service. A foreign page can have its own name resolve to our address (DNS
// rebinding), and the browser then takes us for that page's own server; but it sends that name. An address in its place
// cannot be forged that way.
func (g *Guard) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a := addr(host)
	return g.hosts[canonical(host)] || a.IsLoopback() || g.anyAddr && a.IsValid()
}

var (
	errForeign = errors.New("refused: this request comes from another site's page")
	errNoProof = errors.New("refused: the browser does not say which page this request comes from; programs use a token")
)

// ownPage refuses what a foreign page makes a browser send. withCookie says that a browser has proved who sits before it,
// which it does for foreign pages too: then a request that changes something must say where it comes from. Without a
// cookie a request that says nothing is a program's.
func (g *Guard) ownPage(r *http.Request, withCookie bool) error {
	site := r.Header.Get("Sec-Fetch-Site")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		// A link on a foreign page may lead here; images, frames and scripts may not (web.dev/articles/fetch-metadata).
		link := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
		if (site == "cross-site" || site == "same-site") && !link {
			return errForeign
		}
		return nil
	}
	if withCookie && site == "" && r.Header.Get("Origin") == "" {
		return errNoProof
	}
	if g.cross.Check(r) != nil {
		return errForeign
	}
	return nil
}
