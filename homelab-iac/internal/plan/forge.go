package plan

import (
	"fmt"
	"slices"
	"strings"
)

// A setting of GitLab that protects while it has one value.
type setting struct {
	name string
	safe any
	what string
}

// projectSettings are those of gitlab_project (registry.terraform.io/providers/gitlabhq/gitlab, resource project).
var projectSettings = []setting{
	{"only_allow_merge_if_pipeline_succeeds", true, "a merge request whose pipeline failed can be merged"},
	{"allow_merge_on_skipped_pipeline", false, "a merge request whose pipeline was skipped can be merged"},
	{"only_allow_merge_if_all_discussions_are_resolved", true, "a merge request with open questions can be merged"},
	{"public_builds", false, "everybody can read job logs and artifacts, plans among them"},
	{"public_jobs", false, "everybody can read job logs and artifacts, plans among them"},
	{"merge_method", "ff", "what is merged is not what was planned"},
	{"ci_forward_deployment_enabled", true, "an older pipeline can deploy over a newer one"},
	{"ci_separated_caches", true, "an unprotected branch can put something into the cache of a protected one"},
	{"archive_on_destroy", true, "a destroy deletes the project instead of archiving it"},
	{"archived", false, "no pipeline runs any more: no drill, no watch, no apply"},
	{"resolve_outdated_diff_discussions", false, "a new push resolves open questions by itself"},
	{"restrict_user_defined_variables", true, "one who starts a pipeline can set its variables"},
}

// openness orders GitLab's visibility levels.
var openness = []string{"private", "internal", "public"}

func project(c *court) {
	r := c.r
	for _, s := range projectSettings {
		if r.Kind() != Create && r.is(before, s.safe, s.name) && r.Changes(s.name) && !r.is(after, s.safe, s.name) {
			c.find(Weakens, ByAddress, s.name+" changes: "+s.what, "leave it as it is")
		}
	}
	if n, m, ok := numbers(r.get(before, "approvals_before_merge"), r.get(after, "approvals_before_merge")); ok && m < n {
		c.find(Weakens, ByAddress, "fewer people have to approve a merge request", "leave approvals_before_merge as it is")
	}
	was, is := slices.Index(openness, r.text(before, "visibility_level")), slices.Index(openness, r.text(after, "visibility_level"))
	if is > max(was, 0) || r.Kind() == Update && r.unknown("visibility_level") {
		c.find(Opens, ByAddress, "the project is shown to more people, with its history", "leave visibility_level private")
	}
	for _, feature := range []string{"repository_access_level", "builds_access_level", "container_registry_access_level", "environments_access_level"} {
		if r.Kind() == Update && r.Changes(feature) && r.is(after, "public", feature) {
			c.find(Opens, ByAddress, feature+" becomes public", "leave it private")
		}
	}
}

// reach orders GitLab's access levels from the fewest people to the most.
var reach = []string{"no one", "admin", "owner", "maintainer", "developer", "reporter", "guest"}

func branch(c *court) {
	r := c.r
	for name, what := range map[string]string{
		"push_access_level": "push past the pipeline", "merge_access_level": "merge", "unprotect_access_level": "take the protection away", "create_access_level": "move the tag",
	} {
		was, is := slices.Index(reach, r.text(before, name)), slices.Index(reach, r.text(after, name))
		if r.Kind() == Update && is > was && was >= 0 || r.Kind() == Create && name == "push_access_level" && is > slices.Index(reach, "maintainer") {
			c.find(Opens, ByAddress, fmt.Sprintf("%s changes: more people may %s", name, what), "leave it as it is")
		}
		if r.Kind() == Update && r.unknown(name) {
			c.find(Unclear, ByAddress, name+" is known only when the plan is applied", "write it out")
		}
	}
	if r.is(after, true, "allow_force_push") && !r.is(before, true, "allow_force_push") {
		c.find(Weakens, ByAddress, "the history of the branch can be rewritten", "leave allow_force_push off")
	}
	if r.is(before, true, "code_owner_approval_required") && r.Changes("code_owner_approval_required") && !r.is(after, true, "code_owner_approval_required") {
		c.find(Weakens, ByAddress, "owners of the code need not approve any more", "leave code_owner_approval_required on")
	}
	for _, list := range []string{"allowed_to_push", "allowed_to_merge", "allowed_to_unprotect"} {
		if len(asList(r.get(after, list))) > len(asList(r.get(before, list))) && r.Kind() == Update {
			c.find(Opens, ByAddress, list+" gets another entry", "check who it is, and sign for this address")
		}
	}
}

func variable(c *court) {
	r := c.r
	for _, s := range []setting{
		{"masked", true, "its value is shown in job logs"},
		{"protected", true, "pipelines of every branch get it, those of a merge request, too"},
		{"hidden", true, "its value is shown on the settings page"},
	} {
		if r.Kind() != Create && r.is(before, s.safe, s.name) && !r.is(after, s.safe, s.name) {
			c.find(Opens, ByAddress, s.name+" is turned off: "+s.what, "leave it on")
		}
	}
	if was := r.text(before, "environment_scope"); r.Kind() == Update && was != "" && r.text(after, "environment_scope") != was && !matches(was, r.text(after, "environment_scope")) {
		c.find(Opens, ByAddress, "jobs of other environments get it", "make a variable of its own for them")
	}
}

func schedule(c *court) {
	if c.r.is(before, true, "active") && c.r.Changes("active") && !c.r.is(after, true, "active") {
		c.find(Weakens, ByAddress, "the schedule is turned off: what it started is not started any more", "leave it active")
	}
}

func deployKey(c *court) {
	if c.r.is(after, true, "can_push") && !c.r.is(before, true, "can_push") {
		c.find(Opens, ByAddress, "a machine's key may push code", "leave can_push off")
	}
}

// joinKey judges a key with which machines join the tailnet.
func joinKey(c *court) {
	if c.r.Kind() == Destroy {
		return
	}
	if c.r.is(after, true, "reusable") && !c.r.is(before, true, "reusable") {
		c.find(Opens, ByAddress, "whoever finds the key can join as many machines as he likes", "make a key for each machine: reusable = false")
	}
	if c.r.Kind() == Create && len(texts(c.r.get(after, "tags"))) == 0 && !c.r.unknown("tags") && c.r.is(after, true, "preauthorized") {
		c.find(Opens, ByAddress, "what joins with the key is nobody's tag, so it has all rights of the key's owner", "name the tags")
	}
}

func oauthClient(c *court) {
	for _, scope := range texts(c.r.get(after, "scopes")) {
		if !slices.Contains(texts(c.r.get(before, "scopes")), scope) && (scope == "all" || scope == "policy_file" || scope == "oauth_keys" || c.r.Kind() == Update && !strings.HasSuffix(scope, ":read")) {
			c.find(Opens, ByAddress, "a client gets the scope "+scope, "give it auth_keys for its tags, and what it reads")
		}
	}
}

func routes(c *court) {
	for _, cidr := range texts(c.r.get(after, "routes")) {
		if anywhere(cidr) && !slices.Contains(texts(c.r.get(before, "routes")), cidr) {
			c.find(Opens, ByAddress, "the device becomes an exit to the internet for the tailnet", "name the networks that are meant")
		}
	}
}
