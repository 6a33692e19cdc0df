package qdrant

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// RemoveAll removes what a test made on a real server.
func RemoveAll(t *testing.T, c Config) {
	s := New(c)
	defer s.Close()
	var out struct {
		Collections []struct {
			Name string `json:"name"`
		} `json:"collections"`
	}
	if err := s.client.call(context.Background(), http.MethodGet, "/collections", nil, &out); err != nil {
		t.Error(err)
	}
	for _, x := range out.Collections {
		if strings.HasPrefix(x.Name, c.Prefix) {
			if err := s.client.call(context.Background(), http.MethodDelete, path("collections", x.Name), nil, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

// Snapshots returns the names of a collection's snapshots.
func Snapshots(t *testing.T, s *Store, collection string) (names []string, err error) {
	var all []Snapshot
	err = s.client.call(t.Context(), http.MethodGet, path("collections", collection, "snapshots"), nil, &all)
	for _, x := range all {
		names = append(names, x.Name)
	}
	return names, err
}

func init() { // what waits for a server's restart waits for nothing here
	for i := range pauses {
		pauses[i] /= 100
	}
}
