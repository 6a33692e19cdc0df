// Package plan reads what terraform show -json (or tofu show -json) prints of a plan, and says which of it can lose something that
// nobody gets back. Values are judged and never shown: what leaves this package are addresses, actions and names of attributes.
package plan

import (
	"fmt"
	"slices"
	"strings"
)

// A Plan is what would be done.
type Plan struct {
	Format    string     `json:"format"` // of the file: "1.2"
	Tool      string     `json:"tool"`   // the version of Terraform or OpenTofu that made it
	Made      string     `json:"made"`   // when, RFC 3339; empty where the tool did not say
	Digest    string     `json:"digest"` // SHA-256 of the file, hexadecimal
	Errored   bool       `json:"errored"`
	Resources []Resource `json:"resources"` // in the file's order, those that stay as they are and those that are put off, too
	Drift     []Resource `json:"drift"`     // what others have changed since the last time
	Outputs   []Output   `json:"outputs"`
	Invokes   []string   `json:"invokes"` // addresses of provider actions that would be called (Terraform 1.14)

	commands map[string]bool // addresses in the configuration, without indexes, that have provisioners
}

// A Resource is one object and what would happen to it.
type Resource struct {
	Address  string      `json:"address"`            // module.vps.contabo_instance.this
	Previous string      `json:"previous,omitempty"` // its address before it was moved
	Mode     string      `json:"mode"`               // managed, data, or ephemeral (OpenTofu lists those, too)
	Type     string      `json:"type"`
	Provider string      `json:"provider"` // registry.terraform.io/hashicorp/aws
	Actions  []string    `json:"actions"`  // as the file has them: create, read, update, delete, forget, no-op; a replacement has two
	Reason   string      `json:"reason,omitempty"`
	Deposed  bool        `json:"deposed,omitempty"`  // it is what a replacement left to be destroyed
	Imported bool        `json:"imported,omitempty"` // it is taken over from somewhere
	PutOff   string      `json:"put_off,omitempty"`  // why it would be done by a later plan only
	Changed  []Attribute `json:"changed,omitempty"`  // what differs, sorted by path
	Because  []string    `json:"because,omitempty"`  // the attributes that force a replacement
	values   *values     // a pointer, so that no verb of fmt prints what is behind it
}

// An Attribute differs before and after.
type Attribute struct {
	Path      string `json:"path"` // rule[0].default_retention[0].days
	Sensitive bool   `json:"sensitive,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"` // its value is known when the plan is applied
}

// An Output is a value that the configuration hands out.
type Output struct {
	Name      string   `json:"name"`
	Actions   []string `json:"actions"`
	Sensitive bool     `json:"sensitive,omitempty"`
}

// values are what the provider would be told: what json.Decoder makes of it, with numbers as json.Number.
type values struct {
	before, after, unknown          any
	beforeSensitive, afterSensitive any
}

// String names the resource and its actions. It keeps fmt from looking any deeper.
func (r Resource) String() string {
	return fmt.Sprintf("%s (%s)", r.Address, strings.Join(r.Actions, ", "))
}

// The things that can happen to a resource, as a person would count them.
const (
	Same    = "same"
	Create  = "create"
	Look    = "read" // a data source is read, or something ephemeral opened
	Update  = "update"
	Replace = "replace" // destroyed and made anew, in either order
	Destroy = "destroy"
	Forget  = "forget" // it stays, and Terraform knows it no longer
)

// kinds are all lists of actions that Terraform 1.14 and OpenTofu 1.11 write (internal/command/jsonplan/plan.go of either).
var kinds = map[string]string{
	"no-op": Same, "create": Create, "read": Look, "update": Update, "delete": Destroy, "forget": Forget,
	"delete,create": Replace, "create,delete": Replace, "create,forget": Replace, "forget,create": Replace,
}

// Kind is what happens to the resource; "" where the list of actions is a new one.
func (r Resource) Kind() string {
	all := strings.Join(r.Actions, ",")
	if all == "open" && r.Mode == "ephemeral" {
		return Look
	}
	return kinds[all]
}

// Changes says whether an attribute, or something below it, differs.
func (r Resource) Changes(attribute string) bool {
	return slices.ContainsFunc(r.Changed, func(a Attribute) bool {
		rest, ok := strings.CutPrefix(a.Path, attribute)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Counts are how many managed resources something happens to, by kind. What is put off is not counted.
func (p Plan) Counts() map[string]int {
	n := map[string]int{}
	for _, r := range p.Resources {
		if r.Mode == "managed" && r.PutOff == "" {
			n[r.Kind()]++
		}
	}
	return n
}
