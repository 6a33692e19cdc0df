package web

import (
	"net/http"
)

// routes is every route of the site. Forms answer with a redirect to a page.
func (s *Site) routes() http.Handler {
	mux := http.NewServeMux()
	page := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			}
			if err := h(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}

	// Pages.
	page("GET /{$}", s.start)
	page("GET /chats/{id}", s.chat)
	page("GET /notes/{path...}", s.note)
	page("GET /usage", s.usage)
	page("GET /health", s.health) // JSON unless a browser asks

	// Forms.
	page("POST /chats", s.send)
	page("POST /chats/{id}/messages", s.send)
	page("POST /chats/{id}/title", s.rename)
	page("POST /chats/{id}/delete", s.remove)
	page("POST /messages/{id}/edit", s.edit)
	page("POST /messages/{id}/select", s.selectBranch)
	page("POST /turns/{id}/stop", s.stop)
	page("POST /turns/{id}/again", s.again)
	page("POST /turns/{id}/regenerate", s.regenerate)
	page("POST /theme", s.setTheme)

	// What the script asks for, and downloads.
	page("GET /turns/{id}/events", s.events)
	page("GET /messages/{id}/text", s.source)
	page("GET /chats/{id}/export.md", s.exportMarkdown)
	page("GET /chats/{id}/export.json", s.exportJSON)
	page("GET /where", s.whereFragment)

	// JSON, for the command line and other programs.
	page("GET /api/chats", s.apiChats)
	page("GET /api/route", s.apiRoute)
	page("GET /api/models", s.apiModels)
	page("GET /api/usage", s.apiUsage)

	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /static/{name}", s.static)
	page("GET /", func(http.ResponseWriter, *http.Request) error {
		return problem{http.StatusNotFound, "There is no such page", "The navigation has all that there are."}
	})
	return mux
}

// maxForm is the size in bytes of the largest form: a question may carry a long document.
const maxForm = 4 << 20
