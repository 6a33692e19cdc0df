// Package strict decodes YAML that people write by hand: unknown keys, wrong types and duplicates are faults, all faults
// are reported at once, and each names the line, the key, the value and the cure.
package strict

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Fault is one thing wrong with a document.
type Fault struct {
	Line int    // 1-based; 0: not in the document
	Key  string // dotted path, "providers.davas.kind"
	Text string // what is wrong, with the value, and how to cure it
}

func (f Fault) String() string {
	s := f.Text
	if f.Key != "" {
		s = f.Key + ": " + s
	}
	if f.Line > 0 {
		s = fmt.Sprintf("line %d: %s", f.Line, s)
	}
	return s
}

// Faults are an error when there are any.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Lines tells on which line each key of a document stands, by dotted path.
type Lines map[string]int

// Decode reads one YAML document into the struct that into points to. Fields are matched by their yaml tags; fields
// without one are not keys. Supported are structs, maps with string keys, slices, strings, booleans, integers, floats and
// time.Duration. An empty document leaves the struct as it is.
func Decode(doc []byte, into any) (Lines, Faults) {
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, Faults{syntaxFault(err)}
	}
	d := decoder{lines: Lines{}}
	if len(root.Content) > 0 {
		d.value(root.Content[0], reflect.ValueOf(into).Elem(), "")
	}
	sort.SliceStable(d.faults, func(i, j int) bool { return d.faults[i].Line < d.faults[j].Line })
	return d.lines, d.faults
}

// syntaxFault takes the line out of yaml's own message ("yaml: line 3: ...").
func syntaxFault(err error) Fault {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if n, after, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				return Fault{Line: line, Text: "not YAML: " + after}
			}
		}
	}
	return Fault{Text: "not YAML: " + text}
}

type decoder struct {
	lines  Lines
	faults Faults
}

func (d *decoder) fault(n *yaml.Node, key, format string, args ...any) {
	d.faults = append(d.faults, Fault{n.Line, key, fmt.Sprintf(format, args...)})
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	d.lines[key] = n.Line
	if n.Kind == yaml.AliasNode {
		d.fault(n, key, "aliases (*%s) are not supported: write the value out", n.Value)
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "key:" with nothing behind it means the default
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fields(n, v, key)
	case reflect.Map:
		d.entries(n, v, key)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fault(n, key, "%s is not a list: write [a, b] or one \"- item\" a line", show(n))
			return
		}
		out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", key, i))
		}
		v.Set(out)
	default:
		d.scalar(n, v, key)
	}
}

func (d *decoder) fields(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, key, "%s is not a group of keys: use %s", show(n), strings.Join(keysOf(v.Type()), ", "))
		return
	}
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name := tag(v.Type().Field(i)); name != "" {
			fields[name] = v.Field(i)
		}
	}
	d.pairs(n, key, func(k, val *yaml.Node, path string) {
		field, ok := fields[k.Value]
		if !ok {
			d.fault(k, path, "unknown key; %s", advice(k.Value, keysOf(v.Type())))
			return
		}
		d.value(val, field, path)
	})
}

func (d *decoder) entries(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, key, "%s is not a group of names", show(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	d.pairs(n, key, func(k, val *yaml.Node, path string) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(val, item, path)
		out.SetMapIndex(reflect.ValueOf(k.Value), item)
	})
	v.Set(out)
}

// pairs calls f for each key of a mapping that is a plain word and not there twice.
func (d *decoder) pairs(n *yaml.Node, key string, f func(k, v *yaml.Node, path string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		path := k.Value
		if key != "" {
			path = key + "." + k.Value
		}
		if k.Kind != yaml.ScalarNode {
			d.fault(k, key, "a key must be a word")
			continue
		}
		if line, twice := seen[k.Value]; twice {
			d.fault(k, path, "stands twice; the first is on line %d: remove one", line)
			continue
		}
		seen[k.Value] = k.Line
		f(k, n.Content[i+1], path)
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, key, "%s where one value is expected", show(n))
		return
	}
	var err error
	want := ""
	switch {
	case v.Type() == durationType:
		var x time.Duration
		x, err = time.ParseDuration(n.Value)
		v.SetInt(int64(x))
		want = "a duration: write for example 30s, 5m or 1h30m"
	case v.Kind() == reflect.String:
		v.SetString(n.Value)
	case v.Kind() == reflect.Bool:
		err = n.Decode(v.Addr().Interface())
		want = "true or false"
	case v.CanInt():
		var x int64
		if x, err = strconv.ParseInt(n.Value, 10, v.Type().Bits()); err == nil {
			v.SetInt(x)
		}
		want = "a whole number"
	case v.CanFloat():
		err = n.Decode(v.Addr().Interface())
		want = "a number"
	default:
		panic("strict: unsupported type " + v.Type().String())
	}
	if err != nil {
		d.fault(n, key, "%s is not %s", show(n), want)
	}
}

// show names a node's value for a message, bounded in length. A scalar may be a secret that was put in the wrong place,
// but only ever the operator's own file is shown back to the operator.
func show(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	if len(n.Value) > 40 {
		return strconv.Quote(n.Value[:40] + "...")
	}
	return strconv.Quote(n.Value)
}

func tag(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if name := tag(t.Field(i)); name != "" {
			keys = append(keys, name)
		}
	}
	return keys
}

// advice names the known key that a misspelt one probably meant, or all known keys.
func advice(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if n := distance(word, k); n < least {
			best, least = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known here: " + strings.Join(known, ", ")
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
