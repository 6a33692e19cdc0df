// Package verify asks a machine whether it is what site.yml says. It is not Ansible and shares nothing with the roles: it looks from
// inside with the machine's own tools, so that a role which believes that it did something is not believed.
package verify

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"home.arpa/lab/internal/strict"
)

//go:embed machine.yaml
var machine []byte

// An Assertion is something that must be true of every machine of a group.
type Assertion struct {
	Group string `yaml:"group" json:"group"` // of the inventory, or all
	What  string `yaml:"what" json:"what"`
	Run   string `yaml:"run" json:"run"`   // one shell command that changes nothing
	Want  string `yaml:"want" json:"want"` // what it prints, without the last line's end
}

// A Result is an assertion and what came of it.
type Result struct {
	Assertion
	Got string `json:"got"`
	OK  bool   `json:"ok"`
}

// All are the assertions of machine.yaml.
func All() ([]Assertion, error) {
	var all []Assertion
	if _, faults := strict.Decode(machine, &all); len(faults) > 0 {
		return nil, fmt.Errorf("read machine.yaml:\n%w", faults)
	}
	return all, nil
}

// Groups are those that something is said about, besides all.
func Groups(all []Assertion) (names []string) {
	for _, a := range all {
		if a.Group != "all" {
			names = append(names, a.Group)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Of picks the assertions for a machine that is in some groups.
func Of(all []Assertion, groups []string) []Assertion {
	return slices.DeleteFunc(slices.Clone(all), func(a Assertion) bool { return a.Group != "all" && !slices.Contains(groups, a.Group) })
}

// Ask runs the assertions one after the other. run runs a shell command on the machine and returns what it printed. A command that fails
// proves nothing, whatever it printed: an assertion that wants silence would hold for every machine that does not answer.
func Ask(ctx context.Context, list []Assertion, run func(ctx context.Context, command string) (string, error)) []Result {
	var out []Result
	for _, a := range list {
		got, err := run(ctx, a.Run)
		got = strings.TrimSpace(got)
		ok := err == nil && got == a.Want
		if err != nil {
			got = strings.TrimSpace(got + " " + err.Error())
		}
		out = append(out, Result{a, got, ok})
	}
	return out
}
