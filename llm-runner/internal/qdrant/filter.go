package qdrant

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/vector"
)

// filter is Qdrant's: all of Must, none of MustNot.
type filter struct {
	Must    []object `json:"must,omitempty"`
	MustNot []object `json:"must_not,omitempty"`
}

func is1(key string, value any) object { return object{"key": key, "match": object{"value": value}} }

func anyOf(key string, values []string) object {
	return object{"key": key, "match": object{"any": values}}
}

// newFilter writes f as Qdrant's; nil lets everything through.
func newFilter(f vector.Filter) *filter {
	if f.Empty() {
		return nil
	}
	var out filter
	var places []object
	if len(f.Names) > 0 {
		places = append(places, anyOf(keyName, f.Names))
	}
	if len(f.Folders) > 0 {
		folders := make([]string, len(f.Folders))
		for i, folder := range f.Folders {
			folders[i] = strings.TrimSuffix(folder, "/")
		}
		places = append(places, anyOf(keyFolders, folders))
	}
	switch len(places) {
	case 1:
		out.Must = places
	case 2:
		out.Must = []object{{"should": places}}
	}
	if len(f.Types) > 0 {
		out.Must = append(out.Must, anyOf(keyType, f.Types))
	}
	for _, tags := range f.Tags {
		out.Must = append(out.Must, anyOf(keyTags, tags))
	}
	between := object{}
	if !f.After.IsZero() {
		between["gte"] = f.After.UnixMilli()
	}
	if !f.Before.IsZero() {
		between["lt"] = f.Before.UnixMilli()
	}
	if len(between) > 0 {
		out.Must = append(out.Must, object{"key": keyModified, "range": between})
	}
	return &out
}

// version reads what GET / tells.
func version(body []byte) (string, error) {
	var out struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(body, &out); err != nil || out.Version == "" {
		return "", errors.New("ask qdrant for its version: the answer is not Qdrant's; check the address")
	}
	return out.Version, nil
}

// newestFirst returns the keys of m, which begin with a time, latest first.
func newestFirst(m map[string]string) []string {
	keys := slices.Sorted(maps.Keys(m))
	slices.Reverse(keys)
	return keys
}
