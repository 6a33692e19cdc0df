package mcpserver

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// sessionIdle is how long a session lasts of which nothing is heard.
	sessionIdle = 30 * time.Minute
	// mostBody is the largest request in bytes: a note with its JSON around it.
	mostBody = 4 << 20
)

// Handlers are the streamable HTTP transport of a server, which s returns when somebody comes: for clients of the revisions with sessions, and for those of the later
// ones, where every request stands alone. A door chooses between them (gateway.MCP). Who may come in, under which Host and from
// which Origin, is for the guard before it; the transport looks at the Host of requests on loopback once more.
func Handlers(s func() *mcp.Server, log *slog.Logger) (sessions, alone http.Handler) {
	same := func(*http.Request) *mcp.Server { return s() }
	log = slog.New(log.Handler()).With("part", "mcp")
	sessions = mcp.NewStreamableHTTPHandler(same, &mcp.StreamableHTTPOptions{SessionTimeout: sessionIdle, MaxRequestBodyBytes: mostBody,
		EventStore: mcp.NewMemoryEventStore(nil), Logger: log})
	alone = mcp.NewStreamableHTTPHandler(same, &mcp.StreamableHTTPOptions{Stateless: true, MaxRequestBodyBytes: mostBody, PropagateRequestCancellation: true, Logger: log})
	return sessions, alone
}
