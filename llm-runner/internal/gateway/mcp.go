package gateway

import "net/http"

// stateless is the first revision of the Model Context Protocol without sessions (modelcontextprotocol.io/specification/2026-07-28).
// Revisions are dates, so they compare as text.
const stateless = "2026-07-28"

// MCP is the door of the Model Context Protocol: requests of revisions with sessions go to the one handler, those that stand alone
// to the other.
func MCP(sessions, alone http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Header.Get("Mcp-Session-Id") == "" && r.Header.Get("Mcp-Protocol-Version") >= stateless {
			alone.ServeHTTP(w, r)
			return
		}
		sessions.ServeHTTP(w, r)
	})
}
