package gateway

import (
	"net/http"
	"strings"
)

// upward are the request headers that go to the upstream. The client's own credentials, its cookies and everything about
// the connection stay here, and so does the trace that a call is a part of: it is nobody else's.
var upward = []string{"Accept", "Content-Type", "Idempotency-Key", "Openai-Beta", "User-Agent"}

func requestHeader(from http.Header) http.Header {
	h := make(http.Header, 4)
	for _, k := range upward {
		if v := from[k]; len(v) > 0 {
			h[k] = v
		}
	}
	return h
}

// passHeader copies those of an upstream's response headers that speak about the answer: request ids, rate limits,
// timings. What speaks about its connection, its origin or its body's length is not ours to repeat.
func passHeader(to, from http.Header) {
	for k, v := range from {
		if passes(k) {
			to[k] = v
		}
	}
}

func passes(k string) bool {
	switch k {
	case "Content-Type", "Request-Id", "Retry-After", "Server-Timing", "Cf-Ray", "Deprecation", "Sunset", "Warning":
		return true
	case "X-Frame-Options", "X-Content-Type-Options", "X-Xss-Protection", "X-Powered-By", "X-Robots-Tag",
		"X-Accel-Buffering", "X-Accel-Redirect", "X-Sendfile", "X-Permitted-Cross-Domain-Policies", "X-Dns-Prefetch-Control":
		return false
	}
	if strings.HasPrefix(k, "X-") {
		return !strings.HasPrefix(k, "X-Runner-") && !strings.HasPrefix(k, "X-Forwarded-")
	}
	return strings.HasPrefix(k, "Openai-") || strings.HasPrefix(k, "Anthropic-")
}
