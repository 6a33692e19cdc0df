package strict

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

type house struct {
	Name  string            `yaml:"name"`
	Rooms map[string]room   `yaml:"rooms"`
	Tags  []string          `yaml:"tags"`
	Alias map[string]string `yaml:"alias"`
	Inner int               // no key: it has no tag
}

type room struct {
	Heat  float64       `yaml:"heat"`
	Doors int           `yaml:"doors"`
	Open  bool          `yaml:"open"`
	Wait  time.Duration `yaml:"wait"`
}

func TestDecode(t *testing.T) {
	var got house
	lines, faults := Decode([]byte("name: x\nrooms:\n  hall: {heat: 1.5, doors: 2, open: true, wait: 1m30s}\n  attic:\ntags: [a, b]\n"), &got)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	want := house{Name: "x", Rooms: map[string]room{"hall": {1.5, 2, true, 90 * time.Second}, "attic": {}}, Tags: []string{"a", "b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if lines["rooms.hall.doors"] != 3 || lines["tags[1]"] != 5 {
		t.Errorf("lines %v", lines)
	}
}

func TestEveryFaultIsReportedWithLineKeyValueAndCure(t *testing.T) {
	doc := `nmae: x
rooms:
  hall: {heat: warm, doors: 1.5, open: perhaps, wait: soon}
  cellar: deep
tags: one
alias: [a]
alias: {b: c}
name: {first: x}
inner: 3
`
	var got house
	_, faults := Decode([]byte(doc), &got)
	want := []string{
		`line 1: nmae: unknown key; did you mean "name"?`,
		`line 3: rooms.hall.heat: "warm" is not a number`,
		`line 3: rooms.hall.doors: "1.5" is not a whole number`,
		`line 3: rooms.hall.open: "perhaps" is not true or false`,
		`line 3: rooms.hall.wait: "soon" is not a duration: write for example 30s, 5m or 1h30m`,
		`line 4: rooms.cellar: "deep" is not a group of keys: use heat, doors, open, wait`,
		`line 5: tags: "one" is not a list: write [a, b] or one "- item" a line`,
		`line 6: alias: a list is not a group of names`,
		`line 7: alias: stands twice; the first is on line 6: remove one`,
		`line 8: name: a group of keys where one value is expected`,
		`line 9: inner: unknown key; known here: name, rooms, tags, alias`,
	}
	if got := faults.Error(); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestNotYAML(t *testing.T) {
	var got house
	if _, faults := Decode([]byte("name: [\n"), &got); len(faults) != 1 || !strings.Contains(faults.Error(), "not YAML") {
		t.Errorf("%v", faults)
	}
	if _, faults := Decode([]byte("a: &x 1\nname: *x\n"), &got); len(faults) == 0 {
		t.Error("an alias was taken")
	}
	if _, faults := Decode(nil, &got); len(faults) != 0 {
		t.Errorf("an empty document: %v", faults)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: x\nrooms: {a: {heat: 1}}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var got house
		Decode(doc, &got)
	})
}
