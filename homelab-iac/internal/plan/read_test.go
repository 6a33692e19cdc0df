package plan

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// planOf is a plan of some resources.
func planOf(resources ...string) string {
	return `{"format_version":"1.2","terraform_version":"1.11.4","planned_values":{},"resource_changes":[` + strings.Join(resources, ",") + `],"timestamp":"2026-01-02T03:04:05Z","applyable":true,"complete":true,"errored":false}`
}

func resource(kind, change string) string {
	return `{"address":"` + kind + `.x","mode":"managed","type":"` + kind + `","name":"x","provider_name":"registry.terraform.io/a/b","change":` + change + `}`
}

func TestReadNamesWhatDiffersAndNoValue(t *testing.T) {
	text := planOf(resource("a_b", `{"actions":["delete","create"],
		"before":{"name":"hush-1","list":[{"n":1},{"n":2}],"map":{"k":"hush-2","odd key":1},"password":"hush-3","same":5,"gone":{"deep":"hush-4"},"json":"{\"a\":1}"},
		"after":{"name":"hush-5","list":[{"n":1},{"n":3},{"n":4}],"map":{"k":"hush-2","odd key":2},"password":"hush-6","same":5,"gone":null,"json":"{\"a\":2}"},
		"after_unknown":{"id":true,"list":[{},{},{}],"map":{}},
		"before_sensitive":{"password":true},"after_sensitive":{"password":true},"replace_paths":[["list",1,"n"],["name"]]}`))
	p, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Resources[0]
	want := []Attribute{{Path: "gone"}, {Path: "id", Unknown: true}, {Path: "json"}, {Path: "list[1].n"}, {Path: "list[2]"}, {Path: `map["odd key"]`}, {Path: "name"}, {Path: "password", Sensitive: true}}
	if !reflect.DeepEqual(r.Changed, want) || !reflect.DeepEqual(r.Because, []string{"list[1].n", "name"}) || r.Kind() != Replace {
		t.Errorf("%+v\n%v", r.Changed, r.Because)
	}
	shown, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(shown), fmt.Sprint(p), fmt.Sprintf("%+v %#v %v", p, p, r)} {
		if strings.Contains(s, "hush") {
			t.Errorf("a value is shown: %s", s)
		}
	}
	if !r.Changes("list") || !r.Changes("list[2]") || r.Changes("li") || r.Changes("same") || p.Counts()[Replace] != 1 || len(p.Digest) != 64 {
		t.Error("Changes, Counts or Digest are wrong")
	}
}

func TestWhatIsNotKnownIsNotRead(t *testing.T) {
	good := resource("a_b", `{"actions":["no-op"],"before":{},"after":{}}`)
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                      {"", "is empty"},
		"a plan that is not JSON":      {"PK\x03\x04abc", "terraform show -json"},
		"half a plan":                  {planOf(good)[:200], "not whole JSON"},
		"two documents":                {planOf(good) + planOf(good), "something stands behind"},
		"a list":                       {"[]", "not an object"},
		"another major format":         {strings.Replace(planOf(good), `"1.2"`, `"2.0"`, 1), `"2.0"`},
		"no format":                    {strings.Replace(planOf(good), `"format_version":"1.2",`, "", 1), "format_version"},
		"a state":                      {`{"format_version":"1.0","terraform_version":"1.11.4","values":{"root_module":{}}}`, "not a plan"},
		"an unknown key":               {strings.Replace(planOf(good), `"errored"`, `"wipes":[],"errored"`, 1), `"wipes"`},
		"an unknown key of a resource": {planOf(strings.Replace(good, `"mode"`, `"surprise":1,"mode"`, 1)), `"surprise"`},
		"an unknown key of a change":   {planOf(strings.Replace(good, `"before"`, `"surprise":1,"before"`, 1)), `"surprise"`},
		"a key in capitals":            {strings.Replace(planOf(good), `"resource_changes"`, `"Resource_Changes"`, 1), `"Resource_Changes"`},
		"a key twice":                  {strings.Replace(planOf(good), `"timestamp"`, `"resource_changes":[],"timestamp"`, 1), "comes twice"},
		"no action":                    {planOf(strings.Replace(good, `["no-op"]`, `[]`, 1)), "names no action"},
		"an action that is no text":    {planOf(strings.Replace(good, `["no-op"]`, `[1]`, 1)), "not a text"},
		"no type":                      {planOf(strings.Replace(good, `"type":"a_b",`, "", 1)), "lacks"},
		"no change":                    {planOf(strings.Replace(good, `"change":`, `"deposed":`, 1)), "change is not an object"},
		"a bottomless value":           {strings.Repeat("[", 100000), "nested"},
	} {
		_, err := Read(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestRealPlansAreRead(t *testing.T) {
	f, err := os.Open("testdata/terraform-1.11.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if p.Tool != "1.11.4" || len(p.Resources) != 1 || p.Resources[0].Kind() != Create || len(p.Outputs) != 1 || !p.Outputs[0].Sensitive {
		t.Errorf("%+v", p)
	}
	if want := []Attribute{{"id", false, true}, {"input", true, false}, {"output", false, true}}; !reflect.DeepEqual(p.Resources[0].Changed, want) {
		t.Errorf("%+v", p.Resources[0].Changed)
	}
}
