// Package browse has the tools that look outside: web_search and fetch_url.
package browse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrInside says that an address is one of this machine or of a network that only it reaches.
var ErrInside = errors.New("the address is not of the open internet")

// inside are networks that pages have no business with, beside those that netip knows (iana.org/assignments/iana-ipv4-special-registry
// and iana-ipv6-special-registry).
var inside = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10")

func prefixes(all ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, s := range all {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// open says that an address belongs to the open internet. Tailscale's addresses (100.64.0.0/10, fd7a::/16) do not.
func open(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	return !slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(a) })
}

// client returns an HTTP client that connects to the open internet only, and to the hosts named in allow; the same holds for every
// redirect. No proxy is used: it would connect in our place.
func client(allow []string, redirect func(*http.Request, []*http.Request) error) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: Dial(allow, "name its host in tools.fetch.allow if pages of it may be read"), ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 15 * time.Second, MaxIdleConns: 8, IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: redirect,
	}
}

// Dial returns what connects to the open internet only, and to the hosts named in allow. The address is looked at when the connection is
// made, after the name was resolved, so a name that leads elsewhere the second time leads nowhere. cure is told with ErrInside.
func Dial(allow []string, cure string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d := &net.Dialer{Timeout: 5 * time.Second}
		if !named(allow, host) {
			d.Control = guarded(net.InterfaceAddrs, cure)
		}
		return d.DialContext(ctx, network, address)
	}
}

// guarded refuses a connection to an address inside, and to those of this machine, which own lists: what it serves may be for it alone.
func guarded(own func() ([]net.Addr, error), cure string) func(_, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		inside := err != nil || !open(a.Addr())
		if !inside {
			all, err := own()
			if err != nil {
				return fmt.Errorf("ask for this machine's addresses: %w", err)
			}
			inside = slices.ContainsFunc(all, func(x net.Addr) bool {
				p, err := netip.ParsePrefix(x.String())
				return err == nil && p.Addr().Unmap().WithZone("") == a.Addr().Unmap().WithZone("")
			})
		}
		if inside {
			return fmt.Errorf("%s: %w: %s", address, ErrInside, cure)
		}
		return nil
	}
}

// named says that a host is one of those that the owner allows.
func named(allow []string, host string) bool {
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	return slices.ContainsFunc(allow, func(a string) bool { return strings.EqualFold(a, host) })
}

// address reads a URL that may be fetched. It never has a user name, and no fragment.
func address(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: write one such as https://example.org/page", raw)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q cannot be fetched: only http and https addresses can", raw)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%s holds a user name: addresses with one are not fetched", u.Redacted())
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// same is an address as it is compared with another one.
func same(raw string) string {
	u, err := address(raw)
	if err != nil {
		return ""
	}
	u.Host = strings.ToLower(u.Host)
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String()
}
