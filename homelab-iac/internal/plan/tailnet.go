package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// tailnetPolicy judges the policy file of a tailnet (tailscale.com/kb/1337/policy-syntax).
func tailnetPolicy(c *court) {
	r := c.r
	if r.is(after, true, "overwrite_existing_content") && !r.is(before, true, "overwrite_existing_content") && r.Kind() != Same {
		c.find(Weakens, ByAddress, "the policy that is there is overwritten unseen", "import it: terraform import ADDRESS acl")
	}
	if r.is(after, true, "reset_acl_on_destroy") && !r.is(before, true, "reset_acl_on_destroy") {
		c.find(Weakens, ByAddress, "a destroy gives the tailnet the policy back with which everybody reaches everything", "leave reset_acl_on_destroy off")
	}
	if r.Kind() == Update && !r.Changes("acl") {
		return
	}
	if r.unknown("acl") {
		c.find(Unclear, ByAddress, "the policy is known only when the plan is applied", "write it out")
		return
	}
	is, err := parse(plainJSON([]byte(r.text(after, "acl"))))
	if err != nil || asMap(is) == nil {
		c.find(Unclear, ByAddress, "the policy cannot be read", "write it as JSON or HuJSON")
		return
	}
	was, _ := parse(plainJSON([]byte(r.text(before, "acl"))))
	c.tailnet(asMap(was), asMap(is))
}

func (c *court) tailnet(was, is map[string]any) {
	if fold(is, "acls") == nil && fold(is, "grants") == nil {
		c.find(Opens, ByNothing, "the policy has neither acls nor grants, which means that everybody reaches everything", "write acls, an empty list at least")
	}
	old := accepts(was)
	for _, a := range accepts(is) {
		if slices.ContainsFunc(old, func(o access) bool { return o.covers(a) }) {
			continue
		}
		switch {
		case slices.ContainsFunc(a.from, everybody) && slices.ContainsFunc(a.to, everywhere):
			c.find(Opens, ByNothing, "everybody reaches everything", "name tags and ports")
		case slices.ContainsFunc(a.from, everybody):
			c.find(Opens, ByAddress, "every device of the tailnet reaches "+strings.Join(few(a.to), ", "), "name the tags that need it")
		case slices.ContainsFunc(a.to, everywhere):
			c.find(Opens, ByAddress, strings.Join(few(a.from), ", ")+" reaches everything", "name what it needs, with ports")
		case slices.ContainsFunc(a.to, allPorts) && !slices.ContainsFunc(a.from, person):
			c.find(Opens, ByAddress, strings.Join(few(a.from), ", ")+" reaches all ports of "+strings.Join(few(a.to), ", "), "name the ports")
		}
	}
	for _, section := range []string{"tests", "sshTests"} {
		for _, t := range asList(fold(was, section)) {
			if !slices.ContainsFunc(asList(fold(is, section)), func(v any) bool { return keeps(t, v) }) {
				c.find(Weakens, ByAddress, fmt.Sprintf("one of the policy's own %s goes, or asserts less", section), "leave the tests as they are; add new ones beside them")
				break
			}
		}
	}
	for _, s := range asList(fold(is, "ssh")) {
		if slices.ContainsFunc(asList(fold(was, "ssh")), func(v any) bool { return reflect.DeepEqual(s, v) }) || get(s, "action") == "check" {
			continue
		}
		users := texts(get(s, "users"))
		if slices.ContainsFunc(texts(get(s, "src")), everybody) || slices.Contains(users, "root") || slices.Contains(users, "*") {
			c.find(Opens, ByAddress, "a rule of ssh lets in as root, or lets everybody in", "use action check, and name who and as whom")
		}
	}
	for name, owners := range asMap(fold(is, "tagOwners")) {
		for _, o := range texts(owners) {
			if !slices.Contains(texts(asMap(fold(was, "tagOwners"))[name]), o) && (everybody(o) || o == "autogroup:member") {
				c.find(Opens, ByAddress, "everybody may give a device "+name, "let autogroup:admin own the tags")
			}
		}
	}
	for _, n := range asList(fold(is, "nodeAttrs")) {
		if slices.Contains(texts(get(n, "attr")), "funnel") && !slices.ContainsFunc(asList(fold(was, "nodeAttrs")), func(v any) bool { return reflect.DeepEqual(n, v) }) {
			c.find(Opens, ByAddress, "devices may open ports to the whole internet (funnel)", "leave funnel out: Cloudflare's tunnel has the one public name")
		}
	}
	if now := fold(is, "autoApprovers"); now != nil && !within(flat(now), flat(fold(was, "autoApprovers"))) {
		c.find(Opens, ByAddress, "routes or exits are approved without a person", "approve them in the console")
	}
}

// fold finds a key whatever its case: Tailscale does not tell "ACLs" from "acls".
func fold(m map[string]any, name string) any {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.EqualFold(key, name) {
			return m[key]
		}
	}
	return nil
}

// An access is one thing that a policy lets through. Destinations have ports: tag:web:443.
type access struct{ from, to []string }

func (a access) covers(b access) bool { return within(b.from, a.from) && within(b.to, a.to) }

func accepts(policy map[string]any) []access {
	var all []access
	for _, v := range asList(fold(policy, "acls")) {
		m := asMap(v)
		if action, _ := fold(m, "action").(string); action != "accept" && action != "" {
			continue
		}
		a := access{append(texts(fold(m, "src")), texts(fold(m, "users"))...), append(texts(fold(m, "dst")), texts(fold(m, "ports"))...)}
		all = append(all, a)
	}
	for _, v := range asList(fold(policy, "grants")) {
		m := asMap(v)
		ports := texts(fold(m, "ip"))
		a := access{from: texts(fold(m, "src"))}
		for _, to := range texts(fold(m, "dst")) {
			for _, p := range ports {
				if _, bare, ok := strings.Cut(p, ":"); ok {
					p = bare
				}
				a.to = append(a.to, to+":"+p)
			}
		}
		if len(a.to) > 0 {
			all = append(all, a)
		}
	}
	return all
}

func everybody(who string) bool {
	return slices.Contains([]string{"*", "autogroup:shared", "autogroup:danger-all", "autogroup:tagged"}, who) || anywhere(who)
}

// person says whether a source is a person or a group of persons.
func person(who string) bool {
	return strings.Contains(who, "@") || strings.HasPrefix(who, "group:") || strings.HasPrefix(who, "autogroup:")
}

func everywhere(to string) bool {
	at := strings.LastIndexByte(to, ':')
	return at >= 0 && (to[:at] == "*" || anywhere(to[:at]))
}

func allPorts(to string) bool { return strings.HasSuffix(to, ":*") }

// keeps says whether a test asserts at least what another one did.
func keeps(was, is any) bool {
	w, i := asMap(was), asMap(is)
	if w == nil || i == nil || !reflect.DeepEqual(w["src"], i["src"]) || !reflect.DeepEqual(w["user"], i["user"]) || !reflect.DeepEqual(w["proto"], i["proto"]) {
		return false
	}
	subset := func(key string) bool {
		return !slices.ContainsFunc(texts(w[key]), func(t string) bool { return !slices.Contains(texts(i[key]), t) })
	}
	return subset("deny") && subset("accept") && subset("check") && reflect.DeepEqual(w["dst"], i["dst"])
}

// flat lists the paths of all texts in a value.
func flat(v any) []string {
	var all []string
	switch x := v.(type) {
	case string:
		return []string{x}
	case []any:
		for _, e := range x {
			all = append(all, flat(e)...)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			for _, t := range flat(x[k]) {
				all = append(all, k+"="+t)
			}
		}
	}
	return all
}

func tailnetSettings(c *court) {
	r := c.r
	for name, what := range map[string]string{
		"devices_approval_on": "new devices need no approval", "users_approval_on": "new users need no approval",
		"posture_identity_collection_on": "devices are not known any more", "acls_externally_managed_on": "the policy can be changed in the console",
	} {
		if r.is(before, true, name) && r.Changes(name) && !r.is(after, true, name) {
			c.find(Weakens, ByAddress, name+" is turned off: "+what, "leave it on")
		}
	}
	roles := []string{"none", "admin", "member"}
	if slices.Index(roles, r.text(after, "users_role_allowed_to_join_external_tailnet")) > max(0, slices.Index(roles, r.text(before, "users_role_allowed_to_join_external_tailnet"))) {
		c.find(Opens, ByAddress, "more people may take their devices into other tailnets", "leave users_role_allowed_to_join_external_tailnet none")
	}
}
