package plan

import (
	"fmt"
	"slices"
	"strings"
)

// A Finding is something in a plan that must not happen unless a person has signed for it.
type Finding struct {
	Address string `json:"address"`
	Rule    Rule   `json:"rule"`
	What    string `json:"what"`           // what would happen, without values that are secret
	Cure    string `json:"cure"`           // what a person can do about it
	Cover   Cover  `json:"cover"`          // what kind of signature lets it pass
	Host    string `json:"host,omitempty"` // the machine that is lost, as the plan names it
}

// A Rule says what kind of loss a finding is.
type Rule string

// The rules.
const (
	Destroys   Rule = "destroys"          // an object goes, and what is in it
	Reinstalls Rule = "reinstalls"        // a machine is wiped in place, though the plan says update
	Cancels    Rule = "cancels"           // a contract ends
	Shrinks    Rule = "shrinks-retention" // something is kept for a shorter time
	Weakens    Rule = "weakens"           // a protection against deletion or against people goes
	Opens      Rule = "opens"             // more people or machines get in
	Abandons   Rule = "abandons"          // it stays, and nobody looks after it any more
	Runs       Rule = "runs-commands"     // commands are run that the plan does not show
	Unclear    Rule = "unclear"           // it cannot be judged
)

// A Cover is the kind of signature that a finding needs.
type Cover string

// Precheck tokens cover the machine that they are made for, and the addresses that a person typed besides.
const (
	ByHost    Cover = "host"
	ByAddress Cover = "address"
	ByNothing Cover = "nothing" // what the token itself stands on: there is no token for this
)

// Options are what the configuration around a plan knows better than the plan.
type Options struct {
	// Expendable are modules whose machines may be wiped at will, as addresses: module.dev_learning.
	Expendable []string
}

// Judge finds everything that a plan could lose. It is a pure function. No finding means that what the plan does can be undone by the
// next one.
func Judge(p Plan, o Options) []Finding {
	var all []Finding
	if p.Errored {
		all = append(all, Finding{"the plan", Unclear, "it was made by a run that ended with an error, so it is not whole", "mend the error that terraform plan prints and plan again", ByNothing, ""})
	}
	for _, address := range p.Invokes {
		all = append(all, Finding{address, Runs, "a provider's action is called, and a plan does not say what it does", "read the provider's documentation of it; then sign for this address", ByAddress, ""})
	}
	for _, r := range p.Resources {
		if r.Mode != "managed" {
			continue // reading loses nothing
		}
		all = append(all, judge(p, r, o)...)
	}
	return all
}

func judge(p Plan, r Resource, o Options) []Finding {
	c := &court{p: p, r: r, expendable: r.machine() && slices.ContainsFunc(o.Expendable, func(m string) bool {
		return strings.HasPrefix(r.Address, m+".") || strings.HasPrefix(r.Address, m+"[")
	})}
	kind := r.Kind()
	if p.commands[stem(r.Address)] {
		switch kind {
		case Create, Replace, Destroy:
			c.find(Runs, ByAddress, "it has a provisioner, which runs commands that a plan does not show", "let Ansible do it, or read the provisioner and sign for this address")
		}
	}
	switch kind {
	case "":
		c.find(Unclear, ByNothing, "the list of actions is one that this homelab does not know", "use a newer homelab, or read the plan yourself")
	case Destroy, Replace:
		c.goes(kind)
		if kind == Replace {
			c.becomes()
		}
	case Forget:
		c.forgotten()
	case Create, Update:
		c.becomes()
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return strings.Compare(string(a.Rule)+a.What, string(b.Rule)+b.What) })
	return c.findings
}

// A court judges one resource.
type court struct {
	p          Plan
	r          Resource
	expendable bool
	findings   []Finding
}

// quotedFrom are attributes of which findings quote parts: actions, ports, days.
var quotedFrom = []string{"policy", "assume_role_policy", "policy_arn", "acl", "access_control_policy", "rule", "rules", "routes", "scopes"}

// bare is what a finding says of an attribute that is marked as sensitive.
var bare = map[Rule]string{
	Shrinks: "something is kept for a shorter time", Weakens: "a protection goes", Opens: "more people or machines get in", Unclear: "it cannot be judged",
}

func (c *court) find(rule Rule, cover Cover, what, cure string) {
	if text := bare[rule]; text != "" && slices.ContainsFunc(quotedFrom, c.r.sensitive) {
		what = text + "; the attribute is marked as sensitive, so no more is told"
	}
	f := Finding{Address: c.r.Address, Rule: rule, What: what, Cure: cure, Cover: cover}
	if c.r.Deposed {
		f.Address += " (deposed)"
	}
	if c.r.machine() {
		if f.Host = c.r.host(); f.Host == "" && cover == ByHost {
			f.Cover = ByAddress
		}
	}
	c.findings = append(c.findings, f)
}

// spare are types that hold nothing: what is destroyed of them is made again by the next plan, and nothing depends on the old one.
var spare = words("time_rotating time_offset time_sleep time_static random_pet random_shuffle random_integer null_resource terraform_data tailscale_tailnet_key")

// goes judges what is destroyed, alone or to be made anew.
func (c *court) goes(kind string) {
	r := c.r
	what := "it is destroyed"
	if kind == Replace {
		what = "it is destroyed and made anew"
		if len(r.Because) > 0 {
			what += ", because of " + strings.Join(r.Because, ", ")
		} else if r.Reason != "" {
			what += " (" + strings.ReplaceAll(r.Reason, "_", " ") + ")"
		}
	}
	switch {
	case spare[r.Type] || c.expendable:
	case r.Type == "aws_iam_access_key" && r.is(before, "Inactive", "status"): // nobody has been using it
	case r.Type == "contabo_instance":
		c.find(Cancels, ByHost, what+": the provider cancels the contract, and the server is gone at its end", "to keep it, take it out of the change; to leave it out of Terraform, use a removed block with destroy = false; to lose it, run homelab precheck on the machine")
	case r.machine():
		c.find(Destroys, ByHost, what+", with all that is on it", "keep it, or run homelab precheck on the machine and sign for it")
	case keepers[r.Type] != "":
		c.find(Destroys, ByNothing, what+": "+keepers[r.Type], "take it out of the change; what must go is deleted by hand, after its contents were copied and restored somewhere else")
	case undoing[r.Type] != "":
		c.find(Weakens, ByAddress, what+": "+undoing[r.Type], "leave the resource in, or sign for this address")
	default:
		c.find(Destroys, ByAddress, what, "leave the resource in; if it can be spared, run homelab precheck with --address '"+r.Address+"'")
	}
}

// keepers hold what precheck itself stands on: no token lets them go.
var keepers = map[string]string{
	"aws_s3_bucket":                 "a bucket goes with every backup in it",
	"contabo_object_storage":        "the storage goes with every bucket in it",
	"contabo_object_storage_bucket": "a bucket goes with everything in it",
	"gitlab_project":                "the project goes with its code, its state of Terraform and its variables",
}

// undoing are types whose objects are settings: to destroy one is to turn a protection off.
var undoing = map[string]string{
	"aws_s3_bucket_versioning":                           "the provider suspends versioning, and what is overwritten from then on is lost",
	"aws_s3_bucket_object_lock_configuration":            "new objects are not locked any more",
	"aws_s3_bucket_lifecycle_configuration":              "nothing moves to the cold class any more, and old versions stay for good",
	"aws_s3_bucket_public_access_block":                  "the bucket can be opened to everyone",
	"aws_s3_bucket_ownership_controls":                   "access lists count again",
	"aws_s3_bucket_policy":                               "its denials go: plain HTTP and changes of its settings are possible",
	"aws_s3_bucket_server_side_encryption_configuration": "the bucket's own choice of encryption goes",
	"aws_s3_account_public_access_block":                 "buckets of the account can be opened to everyone",
	"gitlab_branch_protection":                           "anybody who may push can push to the branch, and delete it",
	"gitlab_tag_protection":                              "anybody who may push can move the tags",
	"gitlab_project_protected_environment":               "anybody who may push can deploy",
	"gitlab_pipeline_schedule":                           "what it started is not started any more: a drill, a watch",
	"gitlab_project_approval_rule":                       "merge requests need no approval",
	"gitlab_project_push_rules":                          "what was refused at a push is taken",
	"tailscale_acl":                                      "the tailnet gets the policy back that lets everybody reach everything, where reset_acl_on_destroy is set",
	"tailscale_tailnet_settings":                         "the settings of the tailnet are nobody's any more",
	"tailscale_posture_integration":                      "devices are not looked at any more",
	"contabo_firewall":                                   "the machine's ports are open to the internet",
}

// forgotten judges what stays and is known no longer.
func (c *court) forgotten() {
	if c.r.machine() && !c.expendable || keepers[c.r.Type] != "" || undoing[c.r.Type] != "" || strings.HasPrefix(c.r.Type, "aws_iam_") {
		c.find(Abandons, ByAddress, "it stays as it is, and no later plan will see that it changed", "keep it in the configuration, or sign for this address")
	}
}

// rules judge what a resource of a type becomes, new or changed.
var rules = map[string]func(*court){
	"contabo_instance": instance, "contabo_firewall": firewall,
	"libvirt_domain": machineOf, "libvirt_volume": machineOf,

	"aws_s3_bucket": bucket, "aws_s3_bucket_versioning": versioning, "aws_s3_bucket_object_lock_configuration": objectLock,
	"aws_s3_bucket_lifecycle_configuration": lifecycle, "aws_s3_bucket_public_access_block": publicAccess, "aws_s3_account_public_access_block": publicAccess,
	"aws_s3_bucket_ownership_controls": ownership, "aws_s3_bucket_acl": acl, "aws_s3_bucket_policy": bucketPolicy,
	"aws_s3_bucket_server_side_encryption_configuration": encryption,
	"aws_iam_policy": userPolicy, "aws_iam_user_policy": userPolicy, "aws_iam_role_policy": userPolicy, "aws_iam_group_policy": userPolicy,
	"aws_iam_role": assumable, "aws_iam_user_login_profile": console,
	"aws_iam_user_policy_attachment": attachment, "aws_iam_role_policy_attachment": attachment, "aws_iam_group_policy_attachment": attachment,
	"aws_iam_policy_attachment": attachment,

	"gitlab_project": project, "gitlab_branch_protection": branch, "gitlab_tag_protection": branch, "gitlab_project_variable": variable,
	"gitlab_group_variable": variable, "gitlab_instance_variable": variable, "gitlab_pipeline_schedule": schedule, "gitlab_deploy_key": deployKey,

	"tailscale_acl": tailnetPolicy, "tailscale_tailnet_settings": tailnetSettings, "tailscale_tailnet_key": joinKey,
	"tailscale_device_subnet_routes": routes, "tailscale_oauth_client": oauthClient,
}

// becomes judges what the resource is afterwards.
func (c *court) becomes() {
	if c.expendable {
		return
	}
	if rule, ok := rules[c.r.Type]; ok {
		rule(c)
		return
	}
	c.anything()
}

// The names of attributes by which providers of every kind guard or wipe an object.
var (
	guards   = words("deletion_protection deletion_protection_enabled delete_protection enable_deletion_protection termination_protection disable_api_termination disable_api_stop rebuild_protection prevent_destroy protected")
	wreckers = words("force_destroy force_delete skip_final_snapshot delete_automated_backups purge reset_on_destroy")
	wipers   = words("user_data user_data_base64 image image_id image_reference source_image snapshot_id reinstall rebuild os_id operating_system template_id template clone")
	keepFor  = words("retention_days retention_in_days retention_period backup_retention_period days_to_keep snapshot_retention_limit recovery_window_in_days soft_delete_retention_days noncurrent_days")
)

// anything judges a change of a type that nobody here knows, by the names of what changes.
func (c *court) anything() {
	if c.r.Kind() != Update {
		return
	}
	for _, a := range c.r.Changed {
		name := a.Path[strings.LastIndexByte(a.Path, '.')+1:]
		path := steps(a.Path)
		was, is := c.r.get(before, path...), c.r.get(after, path...)
		switch {
		case guards[name] && is != true:
			c.find(Weakens, ByAddress, fmt.Sprintf("%s is turned off", a.Path), "leave it on, or sign for this address")
		case wreckers[name] && is != false && is != nil || wreckers[name] && a.Unknown:
			c.find(Weakens, ByAddress, fmt.Sprintf("%s is turned on: from then on a destroy takes the contents with it", a.Path), "leave it off, or sign for this address")
		case wipers[name]:
			c.find(Reinstalls, ByAddress, fmt.Sprintf("%s changes in place; with some providers that installs a machine again, and nobody here knows %s", a.Path, c.r.Type), "read in the provider's documentation what it does; then sign for this address, or add a rule for the type")
		case keepFor[name]:
			if n, m, ok := numbers(was, is); !ok || m < n {
				c.find(Shrinks, ByAddress, fmt.Sprintf("%s becomes smaller, or nobody knows what it becomes", a.Path), "keep it as long as before, or sign for this address")
			}
		}
	}
}
