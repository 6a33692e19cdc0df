// Package infisical imitates the two calls of Infisical's API that homelab makes, as its documentation and its own clients describe them: universal
// auth, and the secrets of a folder with imports. What it refuses, it refuses with Infisical's bodies.
package infisical

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// A Server holds secrets in memory. Its exported fields are set before it serves.
type Server struct {
	ID, Secret  string // of its one machine identity
	Project     string
	Environment string

	mu      sync.Mutex
	folders map[string]map[string]string
	imports map[string][]string // folders that a folder imports, in their order
	tokens  map[string]bool
	fail    []int // statuses of the next answers
	asked   []string
}

// New returns a server with a new identity and nothing else.
func New() *Server {
	return &Server{ID: rand.Text(), Secret: rand.Text(), Project: rand.Text(), Environment: "prod",
		folders: map[string]map[string]string{}, imports: map[string][]string{}, tokens: map[string]bool{}}
}

// Set puts a secret into a folder.
func (s *Server) Set(folder, name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folders[folder] == nil {
		s.folders[folder] = map[string]string{}
	}
	s.folders[folder][name] = value
}

// Remove takes one away.
func (s *Server) Remove(folder, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.folders[folder], name)
}

// Import lets a folder import another.
func (s *Server) Import(into, from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports[into] = append(s.imports[into], from)
}

// Fail answers the next requests with these statuses.
func (s *Server) Fail(statuses ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = append(s.fail, statuses...)
}

// Asked returns the method and path of every request.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	if len(s.fail) > 0 {
		status := s.fail[0]
		s.fail = s.fail[1:]
		refuse(w, status, "InternalServerError", "Something went wrong")
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v1/auth/universal-auth/login":
		s.login(w, r)
	case "GET /api/v4/secrets":
		s.list(w, r)
	default:
		refuse(w, http.StatusNotFound, "Not Found", "Route "+r.Method+":"+r.URL.Path+" not found")
	}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var who struct {
		ClientID     string `json:"clientId"`
		ClientSecret string `json:"clientSecret"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&who); err != nil {
		refuse(w, http.StatusUnprocessableEntity, "ValidationFailure", "invalid body")
		return
	}
	if who.ClientID != s.ID || who.ClientSecret != s.Secret {
		refuse(w, http.StatusUnauthorized, "UnauthorizedError", "Invalid credentials")
		return
	}
	token := rand.Text()
	s.tokens[token] = true
	reply(w, http.StatusOK, map[string]any{"accessToken": token, "expiresIn": 7200, "accessTokenMaxTTL": 43200, "tokenType": "Bearer"})
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("Authorization")
	q := r.URL.Query()
	folder := q.Get("secretPath")
	switch {
	case len(token) < 8 || !s.tokens[token[len("Bearer "):]]:
		refuse(w, http.StatusUnauthorized, "UnauthorizedError", "Token missing")
	case q.Get("projectId") != s.Project:
		refuse(w, http.StatusForbidden, "ForbiddenRequestError", "You are not a member of this project")
	case q.Get("environment") != s.Environment || s.folders[folder] == nil:
		refuse(w, http.StatusNotFound, "NotFound", "Folder with path '"+folder+"' in environment with slug '"+q.Get("environment")+"' not found")
	default:
		imports := []any{}
		if q.Get("includeImports") == "true" {
			for _, from := range s.imports[folder] {
				imports = append(imports, map[string]any{"secretPath": from, "environment": s.Environment, "secrets": s.secrets(from)})
			}
		}
		reply(w, http.StatusOK, map[string]any{"secrets": s.secrets(folder), "imports": imports})
	}
}

func (s *Server) secrets(folder string) []any {
	all := []any{}
	for _, name := range slices.Sorted(maps.Keys(s.folders[folder])) {
		all = append(all, map[string]any{"id": name, "workspace": s.Project, "environment": s.Environment, "version": 1, "type": "shared", "secretKey": name,
			"secretValue": s.folders[folder][name], "secretValueHidden": false, "secretPath": folder, "secretComment": "", "tags": []any{}})
	}
	return all
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // who asked has gone
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	reply(w, status, map[string]any{"reqId": "req-" + rand.Text()[:8], "statusCode": status, "message": message, "error": kind})
}
