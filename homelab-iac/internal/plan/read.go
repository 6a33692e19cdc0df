package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Limit is the longest plan that is read, in bytes: a plan of a thousand resources has some ten million.
const Limit = 256 << 20

// known are the keys of a plan (internal/command/jsonplan/plan.go of Terraform 1.14 and OpenTofu 1.11). A file with any other key says
// something that nobody here has thought about, so it is not read: provider actions came without a new format version.
var (
	knownPlan = words("format_version terraform_version variables planned_values resource_drift resource_changes deferred_changes " +
		"deferred_action_invocations output_changes action_invocations prior_state configuration relevant_attributes checks timestamp applyable complete errored")
	knownResource = words("address previous_address module_address mode type name index provider_name deposed change action_reason")
	knownChange   = words("actions before after after_unknown before_sensitive after_sensitive replace_paths importing generated_config before_identity after_identity")
)

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[w] = true
	}
	return set
}

// Read reads a plan. What is cut short, has a key twice, or is written in a way that is not known here is an error, which says no value.
func Read(r io.Reader) (Plan, error) {
	text, err := io.ReadAll(io.LimitReader(r, Limit+1))
	switch {
	case err != nil:
		return Plan{}, fmt.Errorf("read plan: %w", err)
	case len(text) > Limit:
		return Plan{}, fmt.Errorf("read plan: it has more than %d MiB: that is no plan", Limit>>20)
	case len(bytes.TrimSpace(text)) == 0:
		return Plan{}, errors.New("read plan: the file is empty: make it with terraform show -json FILE")
	case bytes.HasPrefix(text, []byte("PK")):
		return Plan{}, errors.New("read plan: this is the plan itself and not its JSON: run terraform show -json FILE")
	}
	root, err := parse(text)
	if err != nil {
		return Plan{}, fmt.Errorf("read plan: %w", err)
	}
	p := Plan{}
	sum := sha256.Sum256(text)
	p.Digest = hex.EncodeToString(sum[:])
	d := &decoder{}
	d.plan(&p, root)
	if len(d.faults) > 0 {
		return Plan{}, fmt.Errorf("read plan: %s", strings.Join(d.faults[:min(len(d.faults), 5)], "; "))
	}
	return p, nil
}

// maxDepth of nested values; a provider's schema has a handful.
const maxDepth = 200

// parse reads one JSON document into maps, slices, strings, json.Numbers and booleans. A key that comes twice in an object is an error:
// readers differ in which of the two they believe.
func parse(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := value(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the plan: it must be one JSON document")
	}
	return v, nil
}

func value(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values are nested more than %d deep: that is no plan", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, cut(dec, err)
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, cut(dec, err)
			}
			name, _ := key.(string) // the decoder lets nothing else stand there
			if _, twice := object[name]; twice {
				return nil, fmt.Errorf("byte %d: a key comes twice in an object: the file was not written by terraform show", dec.InputOffset())
			}
			if object[name], err = value(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		return object, cut(dec, err)
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := value(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, cut(dec, err)
	}
	return token, nil
}

// cut says where the document breaks off, and not what stands there: it may be a secret.
func cut(dec *json.Decoder, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("byte %d: it is not whole JSON: make it again with terraform show -json FILE", dec.InputOffset())
}

// A decoder collects everything that is wrong.
type decoder struct{ faults []string }

func (d *decoder) fault(format string, args ...any) {
	d.faults = append(d.faults, fmt.Sprintf(format, args...))
}

func (d *decoder) object(v any, what string, known map[string]bool) map[string]any {
	o, ok := v.(map[string]any)
	if !ok {
		d.fault("%s is not an object", what)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if known != nil && !known[key] {
			d.fault("%s has the key %.60q, which this homelab does not know: use a newer one, or read the plan yourself", what, key)
		}
	}
	return o
}

func (d *decoder) list(v any, what string) []any {
	list, ok := v.([]any)
	if !ok && v != nil {
		d.fault("%s is not a list", what)
	}
	return list
}

func (d *decoder) text(v any, what string) string {
	s, ok := v.(string)
	if !ok && v != nil {
		d.fault("%s is not a text", what)
	}
	return s
}

func (d *decoder) plan(p *Plan, v any) {
	o := d.object(v, "the file", nil)
	if o == nil {
		return
	}
	p.Format = d.text(o["format_version"], "format_version")
	if major, _, _ := strings.Cut(p.Format, "."); major != "1" {
		d.fault("format_version is %.20q, and this homelab knows 1.x: is it a plan, made with terraform show -json FILE?", p.Format)
		return
	}
	d.object(v, "the file", knownPlan)
	p.Tool = d.text(o["terraform_version"], "terraform_version")
	p.Made = d.text(o["timestamp"], "timestamp")
	switch errored := o["errored"].(type) {
	case nil: // Terraform before 1.5
	case bool:
		p.Errored = errored
	default:
		d.fault("errored is not true or false")
	}
	if _, state := o["values"]; state || o["resource_changes"] == nil && o["planned_values"] == nil && o["configuration"] == nil {
		d.fault("it has no changes, no planned values and no configuration: it is not a plan")
		return
	}
	p.commands = map[string]bool{}
	provisioned(p.commands, "", get(o["configuration"], "root_module"))
	for i, r := range d.list(o["resource_changes"], "resource_changes") {
		p.Resources = append(p.Resources, d.resource(r, fmt.Sprintf("resource_changes[%d]", i)))
	}
	for i, put := range d.list(o["deferred_changes"], "deferred_changes") {
		what := fmt.Sprintf("deferred_changes[%d]", i)
		w := d.object(put, what, words("reason resource_change"))
		r := d.resource(w["resource_change"], what)
		if r.PutOff = d.text(w["reason"], what+".reason"); r.PutOff == "" {
			r.PutOff = "unknown"
		}
		p.Resources = append(p.Resources, r)
	}
	for i, r := range d.list(o["resource_drift"], "resource_drift") {
		p.Drift = append(p.Drift, d.resource(r, fmt.Sprintf("resource_drift[%d]", i)))
	}
	for _, key := range []string{"action_invocations", "deferred_action_invocations"} {
		for i, a := range d.list(o[key], key) {
			p.Invokes = append(p.Invokes, d.invocation(a, fmt.Sprintf("%s[%d]", key, i)))
		}
	}
	if changes, ok := o["output_changes"]; ok && changes != nil {
		outputs := d.object(changes, "output_changes", nil)
		for _, name := range slices.Sorted(maps.Keys(outputs)) {
			what := "output_changes." + name
			change := d.object(outputs[name], what, knownChange)
			p.Outputs = append(p.Outputs, Output{Name: name, Actions: d.actions(change, what), Sensitive: hasTrue(change["before_sensitive"]) || hasTrue(change["after_sensitive"])})
		}
	}
}

// provisioned collects what has a provisioner in a module of the configuration and in those that it calls.
func provisioned(into map[string]bool, prefix string, module any) {
	for _, r := range asList(get(module, "resources")) {
		if address, ok := get(r, "address").(string); ok && len(asList(get(r, "provisioners"))) > 0 {
			into[prefix+address] = true
		}
	}
	calls, _ := get(module, "module_calls").(map[string]any)
	for name, call := range calls {
		provisioned(into, prefix+"module."+name+".", get(call, "module"))
	}
}

func (d *decoder) invocation(v any, what string) string {
	a := d.object(v, what, nil)
	if inner, ok := a["action_invocation"]; ok { // a deferred one
		a = d.object(inner, what, nil)
	}
	address := d.text(a["address"], what+".address")
	if address == "" {
		d.fault("%s has no address", what)
	}
	return address
}

func (d *decoder) resource(v any, what string) Resource {
	o := d.object(v, what, knownResource)
	r := Resource{
		Address: d.text(o["address"], what+".address"), Previous: d.text(o["previous_address"], what+".previous_address"),
		Mode: d.text(o["mode"], what+".mode"), Type: d.text(o["type"], what+".type"), Provider: d.text(o["provider_name"], what+".provider_name"),
		Reason: d.text(o["action_reason"], what+".action_reason"), Deposed: o["deposed"] != nil,
	}
	if r.Address == "" || r.Type == "" || r.Mode != "managed" && r.Mode != "data" && r.Mode != "ephemeral" {
		d.fault("%s lacks an address, a type or a mode", what)
	}
	change := d.object(o["change"], what+".change", knownChange)
	r.Actions = d.actions(change, what)
	r.Imported = change["importing"] != nil
	r.values = &values{change["before"], change["after"], change["after_unknown"], change["before_sensitive"], change["after_sensitive"]}
	r.Changed = differences(r.values)
	for _, steps := range d.list(change["replace_paths"], what+".replace_paths") {
		path := ""
		for _, step := range d.list(steps, what+".replace_paths") {
			switch s := step.(type) {
			case string:
				path = join(path, s)
			case json.Number:
				path += "[" + s.String() + "]"
			default:
				d.fault("%s.replace_paths has a step that is no name and no number", what)
			}
		}
		r.Because = append(r.Because, path)
	}
	slices.Sort(r.Because)
	return r
}

func (d *decoder) actions(change map[string]any, what string) []string {
	var all []string
	for _, a := range d.list(change["actions"], what+".actions") {
		all = append(all, d.text(a, what+".actions"))
	}
	if len(all) == 0 {
		d.fault("%s names no action", what)
	}
	return all
}
