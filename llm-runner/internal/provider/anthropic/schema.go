package anthropic

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Structured outputs know a part of JSON Schema and answer 400 to the rest (platform.claude.com, "Structured outputs",
// JSON Schema limitations; the Go SDK's schemautil.go does the same to its schemas).
var (
	supportedKeys    = []string{"$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions", "description", "enum", "format", "items", "minItems", "pattern", "properties", "required", "title", "type"}
	supportedFormats = []string{"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)

// supported returns schema with what structured outputs would refuse turned into words in its descriptions: objects are
// closed, oneOf becomes anyOf, unknown keywords move into the description. What is not a JSON object is returned as it is.
func supported(schema json.RawMessage) json.RawMessage {
	var s map[string]any
	if err := json.Unmarshal(schema, &s); err != nil || s == nil {
		return schema
	}
	restrict(s)
	out, err := json.Marshal(s)
	if err != nil {
		return schema
	}
	return out
}

func restrict(s map[string]any) {
	if _, ok := s["$ref"]; ok { // stands alone, save for the definitions at the root
		maps.DeleteFunc(s, func(k string, _ any) bool { return k != "$ref" && k != "$defs" && k != "definitions" })
	}
	if one, ok := s["oneOf"]; ok && s["anyOf"] == nil {
		s["anyOf"] = one
		delete(s, "oneOf")
	}
	var words []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		v := s[k]
		n, _ := v.(float64)
		f, _ := v.(string)
		if slices.Contains(supportedKeys, k) && (k != "minItems" || n == 0 || n == 1) && (k != "format" || slices.Contains(supportedFormats, f)) {
			continue
		}
		delete(s, k)
		if k != "$schema" && k != "$id" {
			text, _ := json.Marshal(v) // came from JSON
			words = append(words, fmt.Sprintf("%s: %s", k, text))
		}
	}
	if words != nil {
		about, _ := s["description"].(string)
		s["description"] = strings.TrimSpace(about + "\n\n{" + strings.Join(words, ", ") + "}")
	}
	_, props := s["properties"]
	if s["type"] == "object" || props {
		if values, ok := s["additionalProperties"].(map[string]any); ok && !props {
			restrict(values) // a dictionary
		} else {
			s["additionalProperties"] = false
		}
	}
	for _, k := range []string{"$defs", "definitions", "properties"} {
		each(s[k])
	}
	for _, k := range []string{"anyOf", "allOf"} {
		list, _ := s[k].([]any)
		for _, v := range list {
			if sub, ok := v.(map[string]any); ok {
				restrict(sub)
			}
		}
	}
	if items, ok := s["items"].(map[string]any); ok {
		restrict(items)
	}
}

func each(schemas any) {
	m, _ := schemas.(map[string]any)
	for _, v := range m {
		if sub, ok := v.(map[string]any); ok {
			restrict(sub)
		}
	}
}
