package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

//go:embed static templates
var files embed.FS

// An asset is a file of static/, named by its content: a browser keeps it for good, and sees a new one at once.
type asset struct {
	body    []byte
	kind    string
	version string
}

func loadAssets() (map[string]asset, error) {
	names, err := fs.Glob(files, "static/*")
	if err != nil {
		return nil, err
	}
	all := map[string]asset{}
	for _, name := range names {
		body, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(body)
		all[path.Base(name)] = asset{body, mime.TypeByExtension(path.Ext(name)), hex.EncodeToString(sum[:6])}
	}
	return all, nil
}

func (s *Site) static(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.URL.Query().Get("v") == a.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Header().Set("Content-Type", a.kind)
	w.Write(a.body) //nolint:errcheck // the reader has left
}

// loadPages parses every page with the layout and the parts that pages share.
func (s *Site) loadPages() (map[string]*template.Template, error) {
	shared, err := template.New("").Funcs(functions).Funcs(template.FuncMap{
		"asset": func(name string) (string, error) {
			a, ok := s.assets[name]
			if !ok {
				return "", fmt.Errorf("there is no asset %s", name)
			}
			return "/static/" + name + "?v=" + a.version, nil
		},
	}).Option("missingkey=error").ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/message.html", "templates/jobs.html", "templates/agentparts.html")
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	pages := map[string]*template.Template{"parts": shared}
	for _, name := range []string{"chat", "note", "usage", "health", "queue", "job", "newjob", "library", "progress", "memory", "runs", "run", "tools", "agents", "agent", "agentrun", "error"} {
		own, err := template.Must(shared.Clone()).ParseFS(files, "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("read template %s: %w", name, err)
		}
		pages[name] = own
	}
	return pages, nil
}
