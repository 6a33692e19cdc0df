// Package port finds ports for programs under test that have to be told one.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// given are those that this process has given out: who got one may not listen on it yet.
var given sync.Map

// Free returns a port of 127.0.0.1 at which nobody listens. It lies below those that Linux gives to connections by itself (from 32768;
// net.ipv4.ip_local_port_range), so that nothing takes it before its program does.
func Free() (int, error) {
	var err error
	for range 1000 {
		p := 10_000 + rand.IntN(20_000) //nolint:gosec // no secret
		if _, taken := given.LoadOrStore(p, true); taken {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
			return p, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port between 10000 and 30000: %w", err)
}
