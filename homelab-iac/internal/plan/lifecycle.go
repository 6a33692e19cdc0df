package plan

import (
	"fmt"
	"slices"
	"strings"
)

// An expiry is what one enabled rule of a lifecycle takes away.
type expiry struct {
	id       string
	prefix   string  // which objects,
	narrowed string  // and by what else they are chosen: sizes and tags
	current  float64 // days until an object goes; 0: never
	dated    bool    // or a date on which it goes
	versions float64 // days until an old version goes; 0: never
	newer    float64 // old versions that are kept whatever their age
	classes  []string
}

// shortest is how long old versions must be kept in a new lifecycle, in days: as long as the shortest lock of objects.
const shortest = 14

func expiries(v any) []expiry {
	var all []expiry
	for i, rule := range asList(v) {
		if get(rule, "status") != "Enabled" {
			continue
		}
		e := expiry{}
		if e.id, _ = get(rule, "id").(string); e.id == "" {
			e.id = fmt.Sprintf("rule %d", i+1)
		}
		for _, p := range []any{get(rule, "prefix"), get(rule, "filter", 0, "prefix"), get(rule, "filter", 0, "and", 0, "prefix")} {
			if text, ok := p.(string); ok && text != "" {
				e.prefix = text
			}
		}
		for _, f := range []any{get(rule, "filter", 0), get(rule, "filter", 0, "and", 0)} {
			for _, name := range []string{"object_size_greater_than", "object_size_less_than", "tag", "tags"} {
				v := get(f, name)
				if n, ok := number(v); v == nil || ok && n == 0 || len(asList(v))+len(asMap(v)) == 0 && !ok {
					continue // not set: null, 0 or empty, as each provider's version likes
				}
				e.narrowed += fmt.Sprintf("%s=%v ", name, v)
			}
		}
		e.current, _ = number(get(rule, "expiration", 0, "days"))
		date, _ := get(rule, "expiration", 0, "date").(string)
		e.dated = date != ""
		e.versions, _ = number(get(rule, "noncurrent_version_expiration", 0, "noncurrent_days"))
		e.newer, _ = number(get(rule, "noncurrent_version_expiration", 0, "newer_noncurrent_versions"))
		for _, list := range []string{"transition", "noncurrent_version_transition"} {
			for _, t := range asList(get(rule, list)) {
				class, _ := get(t, "storage_class").(string)
				e.classes = append(e.classes, class)
			}
		}
		all = append(all, e)
	}
	return all
}

func lifecycle(c *court) {
	r := c.r
	if r.lifecycleUnknown() {
		c.find(Unclear, ByAddress, "when something expires is known only when the plan is applied", "write the days out")
		return
	}
	was := expiries(r.get(before, "rule"))
	find := func(e expiry) (expiry, bool) {
		for _, w := range was {
			if w.id == e.id {
				return w, true
			}
		}
		for _, w := range was { // a rule that was only named differently
			if w.prefix == e.prefix && w.narrowed == e.narrowed && w.current == e.current && w.dated == e.dated && w.versions == e.versions && w.newer == e.newer {
				return w, true
			}
		}
		return expiry{}, false
	}
	const cure = "keep it as long as before; versions that a thief has deleted come back only while they are kept"
	for _, e := range expiries(r.get(after, "rule")) {
		w, known := find(e)
		wider := known && (w.narrowed != "" && w.narrowed != e.narrowed || !strings.HasPrefix(e.prefix, w.prefix))
		if e.dated && (!known || !w.dated || wider) || e.current > 0 && (!known || w.current == 0 || e.current < w.current || wider) {
			c.find(Shrinks, ByAddress, fmt.Sprintf("%s: objects that are in use expire by age, and a repository without them is broken", e.id), "let restic delete; a lifecycle may only take old versions")
		}
		switch {
		case e.versions == 0:
		case !known && r.Kind() == Update:
			c.find(Shrinks, ByAddress, fmt.Sprintf("%s: old versions expire after %g days, and no rule of that name did so before", e.id, e.versions), cure)
		case !known && e.versions < shortest:
			c.find(Shrinks, ByAddress, fmt.Sprintf("%s: old versions expire after %g days; %d is the least that leaves time to notice", e.id, e.versions, shortest), cure)
		case known && (w.versions == 0 || e.versions < w.versions || e.newer < w.newer):
			c.find(Shrinks, ByAddress, fmt.Sprintf("%s: old versions expire after %g days instead of %s", e.id, e.versions, days(w.versions)), cure)
		case known && wider:
			c.find(Shrinks, ByAddress, fmt.Sprintf("%s: old versions of other objects than before expire", e.id), cure)
		}
		for _, class := range e.classes {
			if class == "GLACIER" || class == "DEEP_ARCHIVE" {
				c.find(Weakens, ByAddress, fmt.Sprintf("%s: objects move to %s, from where they come back after hours and by hand", e.id, class), "use GLACIER_IR, and only for data/")
			}
		}
	}
}

// lifecycleUnknown says whether something that decides is not known yet. What providers fill in by themselves, and nobody writes, does not
// decide: the days of an expiration that only removes markers, the parts of a filter.
func (r Resource) lifecycleUnknown() bool {
	if get(r.values.unknown, "rule") == true {
		return true
	}
	for i, u := range asList(get(r.values.unknown, "rule")) {
		rule := r.get(after, "rule", i)
		if u == true || hasTrue(get(u, "status")) || hasTrue(get(u, "prefix")) || hasTrue(get(u, "noncurrent_version_expiration")) || get(u, "filter") == true {
			return true
		}
		for j, e := range asList(get(u, "expiration")) {
			if hasTrue(e) && get(rule, "expiration", j, "expired_object_delete_marker") != true {
				return true
			}
		}
		for _, list := range []string{"transition", "noncurrent_version_transition"} {
			if get(u, list) == true || slices.ContainsFunc(asList(get(u, list)), func(t any) bool { return t == true || hasTrue(get(t, "storage_class")) }) {
				return true
			}
		}
		if get(u, "expiration") == true {
			return true
		}
	}
	return false
}

func days(n float64) string {
	if n == 0 {
		return "never"
	}
	return fmt.Sprint(n)
}
