package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A statement of a policy of AWS (docs.aws.amazon.com/IAM, "IAM JSON policy elements reference").
type statement struct {
	deny       bool
	principals []string // "*", or kind:name, sorted
	actions    []string // in lower case: AWS compares them so
	resources  []string
	conditions any
	odd        bool // it has NotAction, NotPrincipal or NotResource
}

// statements reads a policy. ok is false where it is not one.
func statements(text string) (all []statement, ok bool) {
	doc, err := parse([]byte(text))
	if err != nil {
		return nil, false
	}
	list, isList := get(doc, "Statement").([]any)
	if one, isOne := get(doc, "Statement").(map[string]any); isOne {
		list, isList = []any{one}, true
	}
	if !isList {
		return nil, false
	}
	for _, v := range list {
		m, isMap := v.(map[string]any)
		if !isMap {
			return nil, false
		}
		s := statement{resources: texts(m["Resource"]), conditions: m["Condition"]}
		switch m["Effect"] {
		case "Allow":
		case "Deny":
			s.deny = true
		default:
			return nil, false
		}
		for _, a := range texts(m["Action"]) {
			s.actions = append(s.actions, strings.ToLower(a))
		}
		switch p := m["Principal"].(type) {
		case string:
			s.principals = []string{p}
		case map[string]any:
			for _, kind := range slices.Sorted(maps.Keys(p)) {
				for _, name := range texts(p[kind]) {
					if name == "*" {
						s.principals = append(s.principals, "*")
						continue
					}
					s.principals = append(s.principals, kind+":"+name)
				}
			}
		}
		for _, name := range []string{"NotAction", "NotPrincipal", "NotResource"} {
			if m[name] != nil {
				s.odd = true
			}
		}
		all = append(all, s)
	}
	return all, true
}

// matches says whether a pattern with * and ? takes in a text, which may itself be a pattern: a ? takes in no *.
func matches(pattern, text string) bool {
	p, t, star, back := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, back = p, t
			p++
		case p < len(pattern) && (pattern[p] == text[t] || pattern[p] == '?' && text[t] != '*'):
			p++
			t++
		case star >= 0: // let the last star take one more
			back++
			p, t = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func within(narrow, wide []string) bool {
	return !slices.ContainsFunc(narrow, func(n string) bool {
		return !slices.ContainsFunc(wide, func(w string) bool { return matches(w, n) })
	})
}

// covers says whether whatever t is about s is about, too. Conditions count only where they are the same, or where s has none.
func (s statement) covers(t statement) bool {
	if s.odd || t.odd {
		return reflect.DeepEqual(s, t)
	}
	return s.deny == t.deny && within(t.actions, s.actions) && within(t.resources, s.resources) && within(t.principals, s.principals) &&
		(s.conditions == nil || reflect.DeepEqual(s.conditions, t.conditions))
}

// limits are the conditions that say who may come; that the line is encrypted does not.
var limits = words("aws:principalarn aws:principalaccount aws:principalorgid aws:sourcearn aws:sourceaccount aws:sourcevpce aws:userid")

func (s statement) limited() bool {
	for _, operator := range slices.Sorted(maps.Keys(asMap(s.conditions))) {
		if strings.Contains(strings.ToLower(operator), "not") {
			continue
		}
		for key, value := range asMap(asMap(s.conditions)[operator]) {
			if limits[strings.ToLower(key)] && !slices.ContainsFunc(texts(value), func(v string) bool { return strings.Trim(v, "*") == "" }) {
				return true
			}
		}
	}
	return false
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// strong are actions that no key of a homelab may have: with one of them a thief gets the backups for good, or gives himself more.
var strong = []string{
	"s3:deleteobjectversion", "s3:deletebucket", "s3:deletebucketpolicy", "s3:putbucketpolicy", "s3:putbucketversioning", "s3:putlifecycleconfiguration",
	"s3:bypassgovernanceretention", "s3:putbucketobjectlockconfiguration", "s3:putobjectretention", "s3:putobjectlegalhold", "s3:putbucketpublicaccessblock",
	"s3:putaccountpublicaccessblock", "s3:putbucketacl", "s3:putobjectacl", "s3:putbucketownershipcontrols", "s3:putencryptionconfiguration",
	"s3:putreplicationconfiguration", "s3:putobjectversionacl",
	"iam:createuser", "iam:createaccesskey", "iam:putuserpolicy", "iam:attachuserpolicy", "iam:createpolicyversion", "iam:passrole", "iam:createloginprofile",
	"iam:updateassumerolepolicy", "iam:putrolepolicy", "iam:attachrolepolicy", "iam:addusertogroup", "sts:assumerole",
}

// powers are the strong actions that a statement allows.
func (s statement) powers() []string {
	var all []string
	for _, a := range strong {
		if slices.ContainsFunc(s.actions, func(p string) bool { return matches(p, a) }) {
			all = append(all, a)
		}
	}
	return all
}

// reads says whether a statement allows nothing but reading.
func (s statement) reads() bool {
	return !s.odd && len(s.actions) > 0 && !slices.ContainsFunc(s.actions, func(a string) bool {
		_, verb, _ := strings.Cut(a, ":")
		return !strings.HasPrefix(verb, "get") && !strings.HasPrefix(verb, "list") && !strings.HasPrefix(verb, "head") && !strings.HasPrefix(verb, "describe")
	})
}

func bucketPolicy(c *court) { c.policy("policy", true) }
func userPolicy(c *court)   { c.policy("policy", false) }

func assumable(c *court) {
	if c.r.Kind() != Update || c.r.Changes("assume_role_policy") {
		c.policy("assume_role_policy", true)
	}
}

// policy judges a policy in an attribute; one with principals is about who, else it is about one key.
func (c *court) policy(attribute string, principals bool) {
	r := c.r
	if r.Kind() == Update && !r.Changes(attribute) {
		return
	}
	if r.unknown(attribute) {
		// A policy names its bucket: that of a bucket which the same plan makes is not known yet, and guards nothing yet.
		fresh := func(o Resource) bool { return o.Type == "aws_s3_bucket" && o.Kind() == Create }
		if r.Kind() != Create || !slices.ContainsFunc(c.p.Resources, fresh) {
			c.find(Unclear, ByAddress, "the policy is known only when the plan is applied", "plan again once what it depends on is there")
		}
		return
	}
	is, ok := statements(r.text(after, attribute))
	if !ok {
		c.find(Unclear, ByAddress, "the policy cannot be read", "make it with jsonencode or aws_iam_policy_document")
		return
	}
	was, _ := statements(r.text(before, attribute))
	for _, w := range was {
		if w.deny && !slices.ContainsFunc(is, func(s statement) bool { return s.covers(w) }) {
			c.find(Weakens, ByAddress, fmt.Sprintf("a denial goes or becomes narrower: of %s", strings.Join(few(w.actions), ", ")), "leave every statement with Effect Deny as it is")
		}
	}
	for _, s := range is {
		if s.deny || slices.ContainsFunc(was, func(w statement) bool { return w.covers(s) }) {
			continue
		}
		powers := s.powers()
		switch {
		case s.odd:
			c.find(Opens, ByAddress, "something is allowed by what it is not (NotAction, NotPrincipal or NotResource), which takes in more than anybody listed", "name what is allowed")
		case principals && slices.Contains(s.principals, "*") && !s.limited():
			c.find(Opens, ByNothing, "everybody is allowed "+strings.Join(few(s.actions), ", "), "name the principals")
		case len(powers) > 0 && !(principals && attribute == "assume_role_policy"):
			c.find(Opens, ByAddress, "something is allowed with which backups can be deleted for good, or more rights be had: "+strings.Join(few(powers), ", "), "leave it to the administrator's role")
		case r.Kind() == Update && principals:
			c.find(Opens, ByAddress, "somebody is allowed what he was not before: "+strings.Join(few(s.actions), ", "), "check the principals, and sign for this address")
		case r.Kind() == Update && !s.reads():
			c.find(Opens, ByAddress, "a key is allowed what it was not before: "+strings.Join(few(s.actions), ", "), "check that the key still cannot do what it must not, and sign for this address")
		}
	}
}

func few(list []string) []string {
	if len(list) > 4 {
		return append(slices.Clone(list[:4]), fmt.Sprintf("%d more", len(list)-4))
	}
	return list
}

func console(c *court) {
	c.find(Opens, ByAddress, "a key's user gets a password for the console", "keys of machines need none")
}

func attachment(c *court) {
	arn := c.r.text(after, "policy_arn")
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	for _, wide := range []string{"AdministratorAccess", "PowerUserAccess", "FullAccess"} {
		if strings.HasPrefix(arn, "arn:aws:iam::aws:policy/") && strings.Contains(name, wide) {
			c.find(Opens, ByAddress, "it gets AWS's own policy "+name, "write a policy with what is needed")
			return
		}
	}
}
