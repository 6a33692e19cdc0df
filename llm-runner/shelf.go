package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
	"home.arpa/lab/llm-runner/internal/library"
)

// A shelf is the index as the command reaches it: through the server, or itself.
type shelf struct {
	bell *doorbell
	own  *library.Library
}

func (c *call) openShelf(ctx context.Context, config *Config) (s shelf, done func(), err error) {
	if bell, ok := running(config.Data); ok {
		return shelf{bell: &bell}, func() {}, nil
	}
	a, err := assemble(ctx, config, quiet(), nil)
	if err != nil {
		return shelf{}, nil, err
	}
	stop := c.watchReading(a.library)
	_, err = a.library.Sync(ctx)
	stop()
	if err != nil {
		a.close()
		return shelf{}, nil, err
	}
	return shelf{own: a.library}, func() { a.close() }, nil
}

func (s shelf) search(ctx context.Context, query string, limit int) (found library.Shown, err error) {
	if s.own != nil {
		result, err := s.own.Explain(ctx, library.Request{Query: query, Limit: limit})
		return library.Show(result), err
	}
	return found, s.bell.ask(ctx, "/api/library/search?"+url.Values{"q": {query}, "limit": {fmt.Sprint(limit)}}.Encode(), nil, &found)
}

func (s shelf) do(ctx context.Context, verb, pattern string) (state libraryState, err error) {
	if s.own == nil {
		path, body := "/api/library", []byte(nil)
		switch verb {
		case "status":
		case "reindex", "exclude", "include":
			path += "/" + verb
			if body, err = json.Marshal(map[string]string{"pattern": pattern}); err != nil {
				return state, err
			}
		default:
			return state, usageError{"there is no library " + verb + ": say " + libraryVerbs}
		}
		return state, s.bell.ask(ctx, path, body, &state)
	}
	switch verb {
	case "status":
	case "reindex":
		_, err = s.own.Reindex(ctx)
	case "exclude":
		err = s.own.Exclude(ctx, pattern)
	case "include":
		err = s.own.Include(ctx, pattern)
	default:
		err = usageError{"there is no library " + verb + ": say " + libraryVerbs}
	}
	if err == nil && (verb == "exclude" || verb == "include") {
		_, err = s.own.Sync(ctx)
	}
	return libraryState{s.own.Status(), s.own.Excluded()}, err
}

// add hands one file to the library.
func (s shelf) add(ctx context.Context, collection, file string, as library.Upload) (library.Stored, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return library.Stored{}, fmt.Errorf("add document: %w", err)
	case !info.Mode().IsRegular():
		return library.Stored{}, fmt.Errorf("add document %s: it is no regular file; name the files one by one", file)
	case info.Size() > extract.MaxFile:
		return library.Stored{}, fmt.Errorf("add document %s: it is larger than %d MB", file, extract.MaxFile>>20)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return library.Stored{}, fmt.Errorf("add document: %w", err)
	}
	as.Name, as.Data, as.Time = filepath.Base(file), data, time.Time{}
	if s.own != nil {
		return s.own.Add(ctx, collection, as)
	}
	var answer struct{ Documents []library.Stored }
	q := url.Values{"name": {as.Name}, "collection": {collection}, "title": {as.Title}, "url": {as.URL}}
	if err := s.bell.send(ctx, http.MethodPost, "/api/library/documents?"+q.Encode(), data, &answer); err != nil {
		return library.Stored{}, err
	}
	if len(answer.Documents) != 1 {
		return library.Stored{}, fmt.Errorf("add document %s: the server answered with %d documents", file, len(answer.Documents))
	}
	return answer.Documents[0], nil
}

// documents lists what was put, after removing one.
func (s shelf) documents(ctx context.Context, verb, collection, name string) ([]library.Stored, error) {
	if s.own != nil {
		if verb == "remove" {
			if err := s.own.Forget(ctx, collection, name); err != nil {
				return nil, err
			}
		}
		return s.own.Documents(ctx, "")
	}
	var answer struct{ Documents []library.Stored }
	method, path := http.MethodGet, "/api/library/documents"
	if verb == "remove" {
		if err := s.bell.send(ctx, http.MethodDelete, path+"?"+url.Values{"collection": {collection}, "path": {name}}.Encode(), nil, &answer); err != nil {
			return nil, err
		}
	}
	err := s.bell.send(ctx, method, path, nil, &answer)
	return answer.Documents, err
}
