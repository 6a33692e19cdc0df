package fake

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Registry imitates a container registry (the OCI distribution specification 1.1), with GitLab's way to log in: it sends whoever comes
// without a token to /jwt/auth. It keeps everything in memory. It is an http.Handler and safe for concurrent use.
type Registry struct {
	// User and Password are asked for where they are set.
	User, Password string
	// Public says that whoever has no login may read.
	Public bool

	mu        sync.Mutex
	blobs     map[string][]byte // by digest
	manifests map[string]stored // by name@digest and name:tag
	uploads   map[string][]byte
	next      int
	faults    []fault
}

type stored struct {
	kind, digest string
	body         []byte
}

// NewRegistry returns an empty one.
func NewRegistry() *Registry {
	return &Registry{blobs: map[string][]byte{}, manifests: map[string]stored{}, uploads: map[string][]byte{}}
}

// Tag is the digest that a tag has, "" where there is none.
func (g *Registry) Tag(name, tag string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.manifests[name+":"+tag].digest
}

// Break has the next request of that verb whose path contains part fail with a status.
func (g *Registry) Break(verb, part string, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, fault{verb: verb, part: part, status: status})
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

const registryToken = "fake-registry-token"

// ServeHTTP answers as a registry would.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, f := range g.faults {
		if f.verb == r.Method && strings.Contains(r.URL.Path, f.part) {
			g.faults = slices.Delete(g.faults, i, i+1)
			registryError(w, f.status, "UNKNOWN")
			return
		}
	}
	if r.URL.Path == "/jwt/auth" {
		user, password, _ := r.BasicAuth()
		if g.User != "" && (user != g.User || password != g.Password) {
			registryError(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		answer(w, http.StatusOK, map[string]string{"token": registryToken})
		return
	}
	writes := r.Method != http.MethodGet && r.Method != http.MethodHead
	if (g.User != "" && !g.Public || writes) && r.Header.Get("Authorization") != "Bearer "+registryToken {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/jwt/auth",service="container_registry"`)
		registryError(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok || rest == "" {
		w.WriteHeader(http.StatusOK)
		return
	}
	switch {
	case strings.HasSuffix(rest, "/blobs/uploads/") && r.Method == http.MethodPost:
		g.next++
		id := strconv.Itoa(g.next)
		g.uploads[id] = nil
		w.Header().Set("Location", "/v2/"+rest+id+"?_state=x")
		w.WriteHeader(http.StatusAccepted)
	case strings.Contains(rest, "/blobs/uploads/"):
		g.upload(w, r, rest[strings.LastIndex(rest, "/")+1:])
	case strings.Contains(rest, "/blobs/"):
		g.blob(w, r, rest[strings.LastIndex(rest, "/")+1:])
	case strings.Contains(rest, "/manifests/"):
		at := strings.LastIndex(rest, "/manifests/")
		g.manifest(w, r, rest[:at], rest[at+len("/manifests/"):])
	default:
		registryError(w, http.StatusNotFound, "NAME_UNKNOWN")
	}
}

func (g *Registry) upload(w http.ResponseWriter, r *http.Request, id string) {
	had, ok := g.uploads[id]
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<30))
	switch want := r.URL.Query().Get("digest"); {
	case !ok:
		registryError(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	case err != nil:
		registryError(w, http.StatusBadRequest, "SIZE_INVALID")
	case r.Method == http.MethodPatch:
		g.uploads[id] = append(had, body...)
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
	case digest(append(had, body...)) != want:
		registryError(w, http.StatusBadRequest, "DIGEST_INVALID")
	default:
		g.blobs[want] = append(had, body...)
		delete(g.uploads, id)
		w.Header().Set("Docker-Content-Digest", want)
		w.WriteHeader(http.StatusCreated)
	}
}

func (g *Registry) blob(w http.ResponseWriter, r *http.Request, want string) {
	body, ok := g.blobs[want]
	if !ok {
		registryError(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Docker-Content-Digest", want)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // whoever asked may be gone
	}
}

// manifest takes one only if everything that it names is there.
func (g *Registry) manifest(w http.ResponseWriter, r *http.Request, name, reference string) {
	key := name + ":" + reference
	if strings.HasPrefix(reference, "sha256:") {
		key = name + "@" + reference
	}
	if r.Method == http.MethodPut {
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		var told struct {
			Config    struct{ Digest string }
			Layers    []struct{ Digest string }
			Manifests []struct{ Digest string }
		}
		if err != nil || json.Unmarshal(body, &told) != nil {
			registryError(w, http.StatusBadRequest, "MANIFEST_INVALID")
			return
		}
		for _, l := range append(told.Layers, struct{ Digest string }{told.Config.Digest}) {
			if _, ok := g.blobs[l.Digest]; !ok && l.Digest != "" {
				registryError(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN")
				return
			}
		}
		for _, m := range told.Manifests {
			if _, ok := g.manifests[name+"@"+m.Digest]; !ok {
				registryError(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN")
				return
			}
		}
		s := stored{r.Header.Get("Content-Type"), digest(body), body}
		if strings.HasPrefix(reference, "sha256:") && reference != s.digest {
			registryError(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		g.manifests[key], g.manifests[name+"@"+s.digest] = s, s
		w.Header().Set("Docker-Content-Digest", s.digest)
		w.WriteHeader(http.StatusCreated)
		return
	}
	s, ok := g.manifests[key]
	if !ok {
		registryError(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", s.kind)
	w.Header().Set("Docker-Content-Digest", s.digest)
	w.Header().Set("Content-Length", strconv.Itoa(len(s.body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(s.body) // whoever asked may be gone
	}
}

func registryError(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]any{"errors": []map[string]string{{"code": code, "message": strings.ToLower(strings.ReplaceAll(code, "_", " "))}}})
}
