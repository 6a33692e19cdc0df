package plan

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// The two sides of a change.
type side int

const (
	before side = iota
	after
)

func (r Resource) side(s side) any {
	if r.values == nil {
		return nil
	}
	if s == before {
		return r.values.before
	}
	return r.values.after
}

// get follows names and indexes; nil where there is nothing.
func (r Resource) get(s side, path ...any) any { return get(r.side(s), path...) }

func get(v any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = m[s]
		case int:
			v = at(asList(v), s)
		}
	}
	return v
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func (r Resource) text(s side, path ...any) string {
	t, _ := r.get(s, path...).(string)
	return t
}

func (r Resource) is(s side, want any, path ...any) bool {
	return reflect.DeepEqual(r.get(s, path...), want)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case string: // providers have numbers as texts, too
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	}
	return 0, false
}

func numbers(a, b any) (float64, float64, bool) {
	n, ok := number(a)
	m, also := number(b)
	return n, m, ok && also
}

// texts are the strings of a list, or of a lone string.
func texts(v any) []string {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	var all []string
	for _, e := range asList(v) {
		if s, ok := e.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// unknown says whether an attribute, or something below it, is known only when the plan is applied.
func (r Resource) unknown(attribute string) bool {
	return r.values != nil && hasTrue(get(r.values.unknown, attribute))
}

// sensitive says whether an attribute, or something below it, is marked so on either side.
func (r Resource) sensitive(attribute string) bool {
	return r.values != nil && (hasTrue(inside(r.values.beforeSensitive, attribute)) || hasTrue(inside(r.values.afterSensitive, attribute)))
}

var stepForm = regexp.MustCompile(`\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)`)

// steps is a path of Changed, taken apart.
func steps(path string) []any {
	var all []any
	for _, m := range stepForm.FindAllStringSubmatch(path, -1) {
		switch {
		case m[2] != "":
			n, _ := strconv.Atoi(m[2])
			all = append(all, n)
		case m[3] != "":
			all = append(all, m[3])
		default:
			name, err := strconv.Unquote(`"` + m[1] + `"`)
			if err != nil {
				name = m[1]
			}
			all = append(all, name)
		}
	}
	return all
}

var indexes = regexp.MustCompile(`\[(?:"(?:[^"\\]|\\.)*"|\d+)\]`)

// stem is an address without its indexes: how the configuration calls it.
func stem(address string) string { return indexes.ReplaceAllString(address, "") }

// machine says whether the resource is a machine, or a disk of one.
func (r Resource) machine() bool { return machines[r.Type] }

var machines = words("contabo_instance libvirt_domain libvirt_volume libvirt_cloudinit_disk")

var keyForm = regexp.MustCompile(`\["((?:[^"\\]|\\.)*)"\]`)

// host is the machine's name: the key under which its module was called, else the name that it has. A name that is marked as
// sensitive is none.
func (r Resource) host() string {
	if m := keyForm.FindStringSubmatch(r.Address); m != nil {
		return m[1]
	}
	for _, name := range []string{"display_name", "name"} {
		for _, s := range []side{before, after} {
			if r.sensitive(name) {
				continue
			}
			if t := r.text(s, name); t != "" {
				return strings.TrimSuffix(t, ".qcow2")
			}
		}
	}
	return ""
}
