package plan

import (
	"fmt"
	"strings"
)

func bucket(c *court) {
	r := c.r
	if r.Kind() == Update && r.Changes("force_destroy") && !r.is(after, false, "force_destroy") {
		c.find(Weakens, ByAddress, "force_destroy is turned on: from then on a destroy deletes every version of every backup", "leave it false")
	}
	if text := r.text(after, "acl"); publicACL(text) && text != r.text(before, "acl") {
		c.find(Opens, ByNothing, "its access list opens it to everybody", "leave acl out: the bucket's owner is enforced")
	}
	if r.Changes("policy") && r.text(after, "policy") != "" {
		c.policy("policy", true)
	}
}

func versioning(c *court) {
	const status = "status"
	at := []any{"versioning_configuration", 0, status}
	if !c.r.is(after, "Enabled", at...) {
		c.find(Weakens, ByAddress, "versions are not kept any more: what is deleted or overwritten is lost at once", "leave the status Enabled")
	}
	if c.r.is(before, "Enabled", "versioning_configuration", 0, "mfa_delete") && !c.r.is(after, "Enabled", "versioning_configuration", 0, "mfa_delete") {
		c.find(Weakens, ByAddress, "versions can be deleted without a second factor", "leave mfa_delete Enabled")
	}
}

// lockDays is how long new objects are locked, in days. A year is counted as S3 does, as 365.
func lockDays(r Resource, s side) float64 {
	retention := []any{"rule", 0, "default_retention", 0}
	days, _ := number(r.get(s, append(retention, "days")...))
	years, _ := number(r.get(s, append(retention, "years")...))
	return days + 365*years
}

func objectLock(c *court) {
	r := c.r
	if r.unknown("rule") {
		c.find(Unclear, ByAddress, "how long objects are locked is known only when the plan is applied", "write the days out")
		return
	}
	was, is := lockDays(r, before), lockDays(r, after)
	mode := []any{"rule", 0, "default_retention", 0, "mode"}
	switch {
	case is < was:
		c.find(Shrinks, ByAddress, fmt.Sprintf("new objects are locked for %g days instead of %g", is, was), "leave the days as they are: objects that are there keep their lock, new ones are what a thief deletes")
	case is == 0:
		c.find(Weakens, ByAddress, "new objects are not locked at all", "give the rule a default_retention")
	}
	if r.is(before, "COMPLIANCE", mode...) && !r.is(after, "COMPLIANCE", mode...) {
		c.find(Weakens, ByAddress, "the lock can be lifted by one who may bypass it", "leave the mode COMPLIANCE")
	}
}

func publicAccess(c *court) {
	for _, name := range []string{"block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"} {
		if !c.r.is(after, true, name) && (c.r.Kind() != Update || c.r.Changes(name)) {
			c.find(Opens, ByNothing, name+" is off: the bucket can be opened to everybody", "leave all four on")
		}
	}
}

func ownership(c *court) {
	if !c.r.is(after, "BucketOwnerEnforced", "rule", 0, "object_ownership") {
		c.find(Weakens, ByAddress, "access lists count, so one who may write may also give objects away", "leave object_ownership BucketOwnerEnforced")
	}
}

func publicACL(name string) bool {
	return strings.HasPrefix(name, "public-") || name == "authenticated-read"
}

func acl(c *court) {
	r := c.r
	if publicACL(r.text(after, "acl")) {
		c.find(Opens, ByNothing, "its access list opens it to everybody", "leave it private")
	}
	for _, g := range asList(r.get(after, "access_control_policy", 0, "grant")) {
		if uri, _ := get(g, "grantee", 0, "uri").(string); strings.HasSuffix(uri, "/AllUsers") || strings.HasSuffix(uri, "/AuthenticatedUsers") {
			c.find(Opens, ByNothing, "its access list gives something to everybody", "grant to accounts only, or leave it private")
		}
	}
	if r.unknown("acl") || r.unknown("access_control_policy") && r.get(after, "access_control_policy") != nil && r.text(after, "acl") == "" {
		c.find(Unclear, ByAddress, "to whom it is given is known only when the plan is applied", "write it out")
	}
}

func encryption(c *court) {
	at := []any{"rule", 0, "apply_server_side_encryption_by_default", 0, "kms_master_key_id"}
	unknown := c.r.unknown("rule") && (get(c.r.values.unknown, "rule") == true || hasTrue(get(c.r.values.unknown, at[:3]...)))
	was, is := c.r.text(before, at...), c.r.text(after, at...) // no key is written as null or as nothing
	if c.r.Kind() == Update && (was != is || unknown) {
		c.find(Weakens, ByAddress, "objects are encrypted with another key: who cannot use it cannot restore", "leave AES256, or prove a restore with the restore key first and sign for this address")
	}
}
