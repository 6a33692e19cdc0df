package qdrant

import (
	"net/http"
	"testing"
)

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
