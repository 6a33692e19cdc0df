package plan

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A step is one resource of a plan in the corpus, as short as it can be written: before and after are JSON without the outer braces, "-"
// where there is nothing on that side.
type step struct {
	address, actions, before, after string
	more                            string // further keys of the change, each with a comma before it
}

func (s step) json(t *testing.T) string {
	t.Helper()
	text, err := s.text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s step) text() (string, error) {
	parts := strings.Split(stem(s.address), ".")
	kind, mode := parts[len(parts)-2], "managed"
	if slices.Contains(parts, "data") {
		mode = "data"
	}
	side := func(text string) string {
		if text == "-" {
			return "null"
		}
		return "{" + text + "}"
	}
	address, err := json.Marshal(s.address)
	if err != nil {
		return "", err
	}
	actions, err := json.Marshal(strings.Split(s.actions, ","))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`{"address":%s,"mode":%q,"type":%q,"name":%q,"provider_name":"registry.terraform.io/x/y","change":{"actions":%s,"before":%s,"after":%s%s}}`,
		address, mode, kind, parts[len(parts)-1], actions, side(s.before), side(s.after), s.more), nil
}

// quoted makes a policy into the text that a plan has.
func quoted(name, policy string) string {
	text, err := json.Marshal(policy)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%q:%s", name, text)
}

func aws(statements ...string) string {
	return quoted("policy", `{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`)
}

const (
	vps      = `module.vps["contabo"].contabo_instance.this`
	server   = `"display_name":"contabo","product_id":"V153","image_id":"i1","user_data":"#cloud-config\n","ssh_keys":[1],"root_password":7`
	fast     = `module.bucket["fast"].`
	denyTLS  = `{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}`
	denyRule = `{"Effect":"Deny","Principal":"*","Action":["s3:PutBucketVersioning","s3:PutLifecycleConfiguration"],"Resource":"arn:aws:s3:::b","Condition":{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::1:role/admin"}}}`
	list     = `{"Effect":"Allow","Action":["s3:ListBucket","s3:GetBucketLocation"],"Resource":"arn:aws:s3:::b"}`
	getPut   = `{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::b/*"}`
	unlock   = `{"Effect":"Allow","Action":"s3:DeleteObject","Resource":"arn:aws:s3:::b/restic/locks/*"}`
	locked   = `"rule":[{"default_retention":[{"mode":"GOVERNANCE","days":%s,"years":%s}]}]`
	oldGo    = `"rule":[{"id":"old versions","status":"Enabled","filter":[{"prefix":""}],"noncurrent_version_expiration":[{"noncurrent_days":%d}],"expiration":[{"expired_object_delete_marker":true,"days":0,"date":null}]}]`
	open4    = `"block_public_acls":true,"block_public_policy":true,"ignore_public_acls":true,"restrict_public_buckets":true`
	gitlab   = `"only_allow_merge_if_pipeline_succeeds":true,"allow_merge_on_skipped_pipeline":false,"only_allow_merge_if_all_discussions_are_resolved":true,"public_builds":false,"merge_method":"ff","visibility_level":"private","ci_forward_deployment_enabled":true`
	tailnet  = `{"acls":[{"action":"accept","src":["tag:runner"],"dst":["tag:searx:8080"]}],"tagOwners":{"tag:runner":["autogroup:admin"]},"tests":[{"src":"tag:runner","accept":["tag:searx:8080"],"deny":["tag:searx:22"]}]}`
)

func inPlace(old, new string, pairs ...string) (string, string) {
	return old, strings.NewReplacer(pairs...).Replace(new)
}

// corpus is the list of plans. Those with a rule must be refused, and by that rule; those without must pass.
func corpus() map[string]struct {
	steps []step
	rule  Rule
	cover Cover
} {
	type c = struct {
		steps []step
		rule  Rule
		cover Cover
	}
	all := map[string]c{}
	one := func(name string, s step, rule Rule, cover Cover) {
		if _, twice := all[name]; twice {
			panic(name)
		}
		all[name] = c{[]step{s}, rule, cover}
	}
	update := func(name, address, before, after string, rule Rule, cover Cover) {
		one(name, step{address, "update", before, after, ""}, rule, cover)
	}
	swap := func(name, address, before string, rule Rule, cover Cover, pairs ...string) {
		_, after := inPlace(before, before, pairs...)
		if after == before {
			panic(name + " changes nothing")
		}
		update(name, address, before, after, rule, cover)
	}

	// The server at Contabo.
	swap("another image", vps, server, Reinstalls, ByHost, `"i1"`, `"i2"`)
	swap("other cloud-init", vps, server, Reinstalls, ByHost, `config\n`, `config\npackages: [git]`)
	swap("another ssh key", vps, server, Reinstalls, ByHost, `[1]`, `[1,2]`)
	swap("another root password", vps, server, Reinstalls, ByHost, `:7`, `:8`)
	update("another default user", vps, server, server+`,"default_user":"admin"`, Reinstalls, ByHost)
	update("cloud-init goes", vps, server, strings.Replace(server, `"#cloud-config\n"`, "null", 1), Reinstalls, ByHost)
	one("an image that is known later", step{vps, "update", server, strings.Replace(server, `"image_id":"i1",`, "", 1), `,"after_unknown":{"image_id":true}`}, Reinstalls, ByHost)
	one("a password that nobody may see", step{vps, "update", server, strings.Replace(server, ":7", ":8", 1), `,"before_sensitive":{"root_password":true},"after_sensitive":{"root_password":true}`}, Reinstalls, ByHost)
	one("an adopted server with cloud-init", step{vps, "update", strings.Replace(server, `"#cloud-config\n"`, "null", 1), server, `,"importing":{"id":"1"}`}, Reinstalls, ByHost)
	one("a server taken over by its number", step{vps, "create", "-", server + `,"existing_instance_id":"12345"`, ""}, Reinstalls, ByHost)
	update("a server's number is written down later", vps, server, server+`,"existing_instance_id":"12345"`, Reinstalls, ByHost)
	update("a date to cancel on", vps, server, server+`,"cancel_date":"2027-01-01"`, Cancels, ByHost)
	one("the server goes", step{vps, "delete", server, "-", ""}, Cancels, ByHost)
	one("the server is made anew", step{vps, "delete,create", server, server, `,"replace_paths":[["region"]]`}, Cancels, ByHost)
	one("the server is made anew the other way round", step{vps, "create,delete", server, server, ""}, Cancels, ByHost)
	one("the server is forgotten", step{vps, "forget", server, "-", ""}, Abandons, ByAddress)
	swap("another display name", vps, server, "", "", `"display_name":"contabo"`, `"display_name":"control"`)
	one("a new server", step{vps, "create", "-", server, `,"after_unknown":{"id":true,"ip_config":true,"existing_instance_id":true}`}, "", "")
	one("a server that stays", step{vps, "no-op", server, server, ""}, "", "")
	one("a server that moves in the configuration", step{vps, "no-op", server, server, ``}, "", "")
	one("an adopted server that stays", step{vps, "no-op", server, server, `,"importing":{"id":"1"}`}, "", "")
	one("a server that is only read", step{"data.contabo_instance.this", "read", "-", server, ""}, "", "")

	wall := `"status":"active","instance_ids":[1],"rules":[{"inbound":[{"protocol":"udp","status":"active","dest_ports":["41641","3478"],"src_cidr":[{"ipv4":["0.0.0.0/0"],"ipv6":[]}]},{"protocol":"tcp","status":"active","dest_ports":["22"],"src_cidr":[{"ipv4":["192.0.2.1"],"ipv6":[]}]}]}]`
	swap("a port for everybody", "contabo_firewall.this", wall, Opens, ByAddress, `192.0.2.1`, `0.0.0.0/0`)
	swap("a port without addresses", "contabo_firewall.this", wall, Opens, ByAddress, `["192.0.2.1"]`, `[]`)
	swap("a firewall that is off", "contabo_firewall.this", wall, Opens, ByAddress, `"status":"active","instance`, `"status":"inactive","instance`)
	swap("a machine before the firewall", "contabo_firewall.this", wall, Opens, ByAddress, `"instance_ids":[1]`, `"instance_ids":[]`)
	one("a firewall that goes", step{"contabo_firewall.this", "delete", wall, "-", ""}, Weakens, ByAddress)
	swap("another address for ssh", "contabo_firewall.this", wall, "", "", `192.0.2.1`, `192.0.2.2`)
	swap("one port fewer", "contabo_firewall.this", wall, "", "", `,"3478"`, ``)

	// The machine for learning may be wiped at will, others at home not.
	one("the machine for learning is made anew", step{"module.dev_learning.libvirt_domain.this", "delete,create", `"name":"dev-learning"`, `"name":"dev-learning"`, ""}, "", "")
	one("its disk goes", step{"module.dev_learning.libvirt_volume.root", "delete", `"name":"dev-learning.qcow2"`, "-", ""}, "", "")
	one("another machine at home goes", step{"libvirt_domain.prod_services", "delete", `"name":"prod-services"`, "-", ""}, Destroys, ByHost)
	one("a module that only begins like it", step{"module.dev_learning_2.libvirt_domain.this", "delete", `"name":"x"`, "-", ""}, Destroys, ByHost)
	one("a bucket in the module for learning", step{"module.dev_learning.aws_s3_bucket.this", "delete", `"bucket":"b"`, "-", ""}, Destroys, ByNothing)
	update("a machine at home is turned off", "libvirt_domain.prod_services", `"name":"p","running":true`, `"name":"p","running":false`, Weakens, ByHost)
	update("a machine at home gets memory", "libvirt_domain.prod_services", `"name":"p","memory":1`, `"name":"p","memory":2`, "", "")

	// Buckets.
	one("a bucket goes", step{fast + "aws_s3_bucket.this", "delete", `"bucket":"b"`, "-", ""}, Destroys, ByNothing)
	one("a bucket gets another name", step{fast + "aws_s3_bucket.this", "delete,create", `"bucket":"b"`, `"bucket":"c"`, `,"replace_paths":[["bucket"]]`}, Destroys, ByNothing)
	one("a bucket is forgotten", step{fast + "aws_s3_bucket.this", "forget", `"bucket":"b"`, "-", ""}, Abandons, ByAddress)
	update("a bucket that a destroy would empty", fast+"aws_s3_bucket.this", `"bucket":"b","force_destroy":false`, `"bucket":"b","force_destroy":true`, Weakens, ByAddress)
	update("a bucket with other tags", fast+"aws_s3_bucket.this", `"bucket":"b","tags":{"a":"1"}`, `"bucket":"b","tags":{"a":"2"}`, "", "")
	one("a new bucket", step{fast + "aws_s3_bucket.this", "create", "-", `"bucket":"b","object_lock_enabled":true,"force_destroy":false`, `,"after_unknown":{"id":true,"arn":true}`}, "", "")
	update("versions are suspended", fast+"aws_s3_bucket_versioning.this", `"versioning_configuration":[{"status":"Enabled"}]`, `"versioning_configuration":[{"status":"Suspended"}]`, Weakens, ByAddress)
	one("versioning goes", step{fast + "aws_s3_bucket_versioning.this", "delete", `"versioning_configuration":[{"status":"Enabled"}]`, "-", ""}, Weakens, ByAddress)
	one("versions from the first day", step{fast + "aws_s3_bucket_versioning.this", "create", "-", `"versioning_configuration":[{"status":"Enabled"}]`, ""}, "", "")
	one("versioning that is known later", step{fast + "aws_s3_bucket_versioning.this", "update", `"versioning_configuration":[{"status":"Enabled"}]`, `"versioning_configuration":[{}]`, `,"after_unknown":{"versioning_configuration":[{"status":true}]}`}, Weakens, ByAddress)
	update("a second factor goes", fast+"aws_s3_bucket_versioning.this", `"versioning_configuration":[{"status":"Enabled","mfa_delete":"Enabled"}]`, `"versioning_configuration":[{"status":"Enabled","mfa_delete":"Disabled"}]`, Weakens, ByAddress)
	lock := func(days, years string) string { return fmt.Sprintf(locked, days, years) }
	update("a shorter lock", fast+"aws_s3_bucket_object_lock_configuration.this", lock("14", "null"), lock("7", "null"), Shrinks, ByAddress)
	update("a year becomes thirty days", fast+"aws_s3_bucket_object_lock_configuration.this", lock("null", "1"), lock("30", "null"), Shrinks, ByAddress)
	update("a longer lock", fast+"aws_s3_bucket_object_lock_configuration.this", lock("14", "null"), lock("30", "null"), "", "")
	update("days become a year", fast+"aws_s3_bucket_object_lock_configuration.this", lock("30", "null"), lock("null", "1"), "", "")
	update("a lock that can be lifted", fast+"aws_s3_bucket_object_lock_configuration.this", strings.Replace(lock("14", "null"), "GOVERNANCE", "COMPLIANCE", 1), lock("14", "null"), Weakens, ByAddress)
	update("a lock without a rule", fast+"aws_s3_bucket_object_lock_configuration.this", lock("14", "null"), `"rule":[]`, Shrinks, ByAddress)
	one("a lock that is known later", step{fast + "aws_s3_bucket_object_lock_configuration.this", "update", lock("14", "null"), lock("null", "null"), `,"after_unknown":{"rule":[{"default_retention":[{"days":true}]}]}`}, Unclear, ByAddress)
	one("the lock goes", step{fast + "aws_s3_bucket_object_lock_configuration.this", "delete", lock("14", "null"), "-", ""}, Weakens, ByAddress)
	life := fast + "aws_s3_bucket_lifecycle_configuration.this"
	old := func(days int) string { return fmt.Sprintf(oldGo, days) }
	update("old versions go sooner", life, old(60), old(30), Shrinks, ByAddress)
	update("old versions stay longer", life, old(30), old(60), "", "")
	swap("objects in use expire", life, old(30), Shrinks, ByAddress, `"days":0`, `"days":90`)
	swap("objects in use expire on a day", life, old(30), Shrinks, ByAddress, `"date":null`, `"date":"2027-01-01T00:00:00Z"`)
	swap("a rule for other objects", life, strings.Replace(old(30), `"prefix":""`, `"prefix":"logs/"`, 1), Shrinks, ByAddress, `"logs/"`, `""`)
	swap("a rule for fewer objects", life, old(30), "", "", `"prefix":""`, `"prefix":"logs/"`)
	swap("a rule that is turned off", life, old(30), "", "", `"Enabled"`, `"Disabled"`)
	swap("a rule that is turned on", life, strings.Replace(old(30), "Enabled", "Disabled", 1), Shrinks, ByAddress, `"Disabled"`, `"Enabled"`)
	swap("a rule with another name", life, old(30), "", "", `old versions`, `versions`)
	swap("objects move to the deep archive", life, old(30), Weakens, ByAddress, `"expiration"`, `"transition":[{"days":0,"storage_class":"DEEP_ARCHIVE"}],"expiration"`)
	swap("objects move to instant retrieval", life, old(30), "", "", `"expiration"`, `"transition":[{"days":0,"storage_class":"GLACIER_IR"}],"expiration"`)
	one("the first lifecycle", step{life, "create", "-", old(30), ""}, "", "")
	one("the first lifecycle, and a hasty one", step{life, "create", "-", old(1), ""}, Shrinks, ByAddress)
	one("a lifecycle that is known later", step{life, "update", old(30), old(30), `,"after_unknown":{"rule":[{"noncurrent_version_expiration":[{"noncurrent_days":true}]}]}`}, Unclear, ByAddress)
	one("a lifecycle that is wholly known later", step{life, "update", old(30), "", `,"after_unknown":{"rule":true}`}, Unclear, ByAddress)
	one("days that the provider fills in", step{life, "create", "-", old(30), `,"after_unknown":{"rule":[{"expiration":[{"days":true,"date":false}],"filter":[{"prefix":true,"and":[]}]}]}`}, "", "")
	one("days of objects in use that are known later", step{life, "create", "-", strings.Replace(old(30), `delete_marker":true`, `delete_marker":false`, 1), `,"after_unknown":{"rule":[{"expiration":[{"days":true}]}]}`}, Unclear, ByAddress)
	swap("a filter written in another way", life, old(30), "", "", `"filter":[{"prefix":""}]`, `"filter":[{"prefix":null,"object_size_greater_than":0,"tag":[]}]`)
	swap("a rule for larger objects, too", life, strings.Replace(old(30), `"prefix":""`, `"prefix":"","object_size_less_than":500`, 1), Shrinks, ByAddress, `"prefix":"","object_size_less_than":500`, `"prefix":"","object_size_less_than":900`)
	one("an adopted bucket without versions", step{fast + "aws_s3_bucket_versioning.this", "no-op", `"versioning_configuration":[{"status":"Suspended"}]`, `"versioning_configuration":[{"status":"Suspended"}]`, `,"importing":{"id":"b"}`}, "", "")
	block := fast + "aws_s3_bucket_public_access_block.this"
	swap("public policies are allowed", block, open4, Opens, ByNothing, `"block_public_policy":true`, `"block_public_policy":false`)
	one("a block that lacks one of four", step{block, "create", "-", `"block_public_acls":true,"block_public_policy":true,"ignore_public_acls":true`, ""}, Opens, ByNothing)
	one("the block goes", step{block, "delete", open4, "-", ""}, Weakens, ByAddress)
	one("a whole block", step{block, "create", "-", open4, ""}, "", "")
	update("access lists count again", fast+"aws_s3_bucket_ownership_controls.this", `"rule":[{"object_ownership":"BucketOwnerEnforced"}]`, `"rule":[{"object_ownership":"ObjectWriter"}]`, Weakens, ByAddress)
	one("an access list for everybody", step{fast + "aws_s3_bucket_acl.this", "create", "-", `"acl":"public-read"`, ""}, Opens, ByNothing)
	one("a grant for everybody", step{fast + "aws_s3_bucket_acl.this", "create", "-", `"access_control_policy":[{"grant":[{"grantee":[{"uri":"http://acs.amazonaws.com/groups/global/AllUsers"}]}]}]`, ""}, Opens, ByNothing)
	one("a private access list", step{fast + "aws_s3_bucket_acl.this", "create", "-", `"acl":"private"`, ""}, "", "")
	update("no key is written in another way", fast+"aws_s3_bucket_server_side_encryption_configuration.this", `"rule":[{"apply_server_side_encryption_by_default":[{"sse_algorithm":"AES256","kms_master_key_id":""}]}]`, `"rule":[{"apply_server_side_encryption_by_default":[{"sse_algorithm":"AES256","kms_master_key_id":null}],"bucket_key_enabled":true}]`, "", "")
	update("another key encrypts", fast+"aws_s3_bucket_server_side_encryption_configuration.this", `"rule":[{"apply_server_side_encryption_by_default":[{"sse_algorithm":"AES256","kms_master_key_id":""}]}]`, `"rule":[{"apply_server_side_encryption_by_default":[{"sse_algorithm":"aws:kms","kms_master_key_id":"k"}]}]`, Weakens, ByAddress)

	// Policies.
	pol := fast + "aws_s3_bucket_policy.this"
	update("plain HTTP is possible", pol, aws(denyTLS, denyRule), aws(denyRule), Weakens, ByAddress)
	update("a denial of less", pol, aws(denyTLS, denyRule), aws(denyTLS, strings.Replace(denyRule, `"s3:PutBucketVersioning",`, "", 1)), Weakens, ByAddress)
	update("a denial for fewer", pol, aws(denyRule), aws(strings.Replace(denyRule, `"Principal":"*"`, `"Principal":{"AWS":"arn:aws:iam::1:user/x"}`, 1)), Weakens, ByAddress)
	update("a denial under another condition", pol, aws(denyRule), aws(strings.Replace(denyRule, "role/admin", "*", 1)), Weakens, ByAddress)
	update("a denial of more", pol, aws(denyTLS, denyRule), aws(denyTLS, strings.Replace(denyRule, `"s3:PutBucketVersioning"`, `"s3:PutBucketVersioning","s3:PutBucketPolicy"`, 1)), "", "")
	update("denials in another order", pol, aws(denyTLS, denyRule), aws(denyRule, denyTLS), "", "")
	update("everybody may read", pol, aws(denyTLS), aws(denyTLS, `{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}`), Opens, ByNothing)
	one("everybody with an account may read", step{pol, "create", "-", aws(denyTLS, `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}`), ""}, Opens, ByNothing)
	one("everybody of one organisation may read", step{pol, "create", "-", aws(denyTLS, `{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}}`), ""}, "", "")
	one("a condition that limits nobody", step{pol, "create", "-", aws(`{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringLike":{"aws:PrincipalArn":"*"}}}`), ""}, Opens, ByNothing)
	update("somebody else may write", pol, aws(denyTLS), aws(denyTLS, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::2:root"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*"}`), Opens, ByAddress)
	one("the first policy", step{pol, "create", "-", aws(denyTLS, denyRule), ""}, "", "")
	one("a policy that cannot be read", step{pol, "update", aws(denyTLS), quoted("policy", "{"), ""}, Unclear, ByAddress)
	one("a policy that is known later", step{pol, "update", aws(denyTLS), "", `,"after_unknown":{"policy":true}`}, Unclear, ByAddress)
	all["a policy for a bucket that is made with it"] = c{[]step{
		{fast + "aws_s3_bucket.this", "create", "-", `"bucket":"b"`, ""}, {pol, "create", "-", "", `,"after_unknown":{"policy":true}`}}, "", ""}
	key := fast + `aws_iam_user_policy.key["backup"]`
	update("the backup key may delete", key, aws(list, getPut, unlock), aws(list, getPut, strings.Replace(unlock, "restic/locks/*", "*", 1)), Opens, ByAddress)
	update("the backup key may delete versions", key, aws(list, getPut), aws(list, getPut, strings.Replace(unlock, "DeleteObject", "DeleteObject*", 1)), Opens, ByAddress)
	one("a key that may do everything", step{key, "create", "-", aws(`{"Effect":"Allow","Action":"*","Resource":"*"}`), ""}, Opens, ByAddress)
	one("a key that may do what is not listed", step{key, "create", "-", aws(`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`), ""}, Opens, ByAddress)
	one("a key that may lift locks", step{key, "create", "-", aws(`{"Effect":"Allow","Action":"s3:Bypass*","Resource":"*"}`), ""}, Opens, ByAddress)
	one("the four keys as they should be", step{key, "create", "-", aws(list, getPut, unlock), ""}, "", "")
	update("a key may look at more", key, aws(list), aws(list, `{"Effect":"Allow","Action":"s3:GetLifecycleConfiguration","Resource":"*"}`), "", "")
	update("a key may do less", key, aws(list, getPut, unlock), aws(list), "", "")
	one("a key's user for people", step{fast + "aws_iam_user_login_profile.this", "create", "-", `"user":"backup"`, ""}, Opens, ByAddress)
	one("a key's user becomes the administrator", step{"aws_iam_user_policy_attachment.this", "create", "-", `"policy_arn":"arn:aws:iam::aws:policy/AdministratorAccess"`, ""}, Opens, ByAddress)
	one("a key's user gets a policy of ours", step{"aws_iam_user_policy_attachment.this", "create", "-", `"policy_arn":"arn:aws:iam::1:policy/mine"`, ""}, "", "")
	one("a role for everybody", step{"aws_iam_role.admin", "create", "-", strings.Replace(aws(`{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}`), `"policy"`, `"assume_role_policy"`, 1), ""}, Opens, ByNothing)
	one("a role for one", step{"aws_iam_role.admin", "create", "-", strings.Replace(aws(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:user/me"},"Action":"sts:AssumeRole"}`), `"policy"`, `"assume_role_policy"`, 1), ""}, "", "")
	one("a key that is in use goes", step{fast + `aws_iam_access_key.key["backup"]`, "delete", `"status":"Active"`, "-", ""}, Destroys, ByAddress)
	one("a key that is not in use goes", step{fast + `aws_iam_access_key.key["backup"]`, "delete", `"status":"Inactive"`, "-", ""}, "", "")

	hidden := `,"before_sensitive":{"policy":true},"after_sensitive":{"policy":true}`
	one("a policy that nobody may see", step{pol, "update", aws(denyTLS, `{"Effect":"Deny","Principal":"*","Action":"s3:hush","Resource":"arn:aws:s3:::b"}`), aws(denyTLS, `{"Effect":"Allow","Principal":{"AWS":"x"},"Action":"s3:hush2","Resource":"arn:aws:s3:::b"}`), hidden}, Weakens, ByAddress)

	// GitLab.
	for setting, bad := range map[string]string{
		`"only_allow_merge_if_pipeline_succeeds":true`: "false", `"allow_merge_on_skipped_pipeline":false`: "true", `"only_allow_merge_if_all_discussions_are_resolved":true`: "null",
		`"public_builds":false`: "true", `"merge_method":"ff"`: `"merge"`, `"ci_forward_deployment_enabled":true`: "false",
	} {
		name, _, _ := strings.Cut(setting, ":")
		swap("the project's "+name, "gitlab_project.this", gitlab, Weakens, ByAddress, setting, name+":"+bad)
	}
	swap("a public project", "gitlab_project.this", gitlab, Opens, ByAddress, `"private"`, `"public"`)
	update("another description of the project", "gitlab_project.this", gitlab, gitlab+`,"description":"x"`, "", "")
	one("the project goes", step{"gitlab_project.this", "delete", gitlab, "-", ""}, Destroys, ByNothing)
	one("a new project", step{"gitlab_project.this", "create", "-", gitlab, ""}, "", "")
	guard := `"branch":"main","push_access_level":"no one","merge_access_level":"maintainer","allow_force_push":false`
	swap("main can be pushed to", "gitlab_branch_protection.main", guard, Opens, ByAddress, `"no one"`, `"maintainer"`)
	swap("main's history can be rewritten", "gitlab_branch_protection.main", guard, Weakens, ByAddress, `push":false`, `push":true`)
	swap("fewer may merge", "gitlab_branch_protection.main", guard, "", "", `"merge_access_level":"maintainer"`, `"merge_access_level":"admin"`)
	one("main's protection goes", step{"gitlab_branch_protection.main", "delete", guard, "-", ""}, Weakens, ByAddress)
	one("main's protection is made anew", step{"gitlab_branch_protection.main", "delete,create", guard, guard, `,"replace_paths":[["branch"]]`}, Weakens, ByAddress)
	value := `"key":"APPLY_KEY","value":"hush","masked":true,"protected":true,"hidden":true,"environment_scope":"production"`
	secret := `,"before_sensitive":{"value":true},"after_sensitive":{"value":true}`
	one("a secret in the logs", step{"gitlab_project_variable.this", "update", value, strings.Replace(value, `"masked":true`, `"masked":false`, 1), secret}, Opens, ByAddress)
	one("a secret for every branch", step{"gitlab_project_variable.this", "update", value, strings.Replace(value, `"protected":true`, `"protected":false`, 1), secret}, Opens, ByAddress)
	one("a secret for every environment", step{"gitlab_project_variable.this", "update", value, strings.Replace(value, `"production"`, `"*"`, 1), secret}, Opens, ByAddress)
	one("another value of a secret", step{"gitlab_project_variable.this", "update", value, strings.Replace(value, `"hush"`, `"hush2"`, 1), secret}, "", "")
	one("a new variable", step{"gitlab_project_variable.this", "create", "-", value, secret}, "", "")
	update("the drill is not started any more", "gitlab_pipeline_schedule.drill", `"active":true`, `"active":false`, Weakens, ByAddress)
	update("the drill is started on another day", "gitlab_pipeline_schedule.drill", `"active":true,"cron":"0 1 * * 0"`, `"active":true,"cron":"0 1 * * 1"`, "", "")
	update("a machine's key may push", "gitlab_deploy_key.this", `"can_push":false`, `"can_push":true`, Opens, ByAddress)

	// The tailnet.
	net := func(policy string) string { return quoted("acl", policy) }
	acls := "module.tailnet.tailscale_acl.this"
	edit := func(name string, rule Rule, cover Cover, pairs ...string) {
		_, after := inPlace(tailnet, tailnet, pairs...)
		if after == tailnet {
			panic(name)
		}
		update(name, acls, net(tailnet), net(after), rule, cover)
	}
	edit("everybody reaches everything", Opens, ByNothing, `"src":["tag:runner"],"dst":["tag:searx:8080"]`, `"src":["*"],"dst":["*:*"]`)
	edit("everybody reaches the search", Opens, ByAddress, `"src":["tag:runner"],"dst"`, `"src":["*"],"dst"`)
	edit("the runner reaches everything", Opens, ByAddress, `["tag:searx:8080"]}]`, `["*:*"]}]`)
	edit("the runner reaches every port", Opens, ByAddress, `["tag:searx:8080"]}]`, `["tag:searx:*"]}]`)
	edit("a policy without rules", Opens, ByNothing, `"acls":[{"action":"accept","src":["tag:runner"],"dst":["tag:searx:8080"]}],`, ``)
	edit("a grant of everything", Opens, ByNothing, `"tagOwners"`, `"grants":[{"src":["*"],"dst":["*"],"ip":["*"]}],"tagOwners"`)
	edit("a test goes", Weakens, ByAddress, `"tests":[{"src":"tag:runner","accept":["tag:searx:8080"],"deny":["tag:searx:22"]}]`, `"tests":[]`)
	edit("a test asserts less", Weakens, ByAddress, `"deny":["tag:searx:22"]`, `"deny":[]`)
	edit("everybody owns a tag", Opens, ByAddress, `"autogroup:admin"`, `"autogroup:member"`)
	edit("ssh as root", Opens, ByAddress, `"tagOwners"`, `"ssh":[{"action":"accept","src":["tag:runner"],"dst":["tag:searx"],"users":["root"]}],"tagOwners"`)
	edit("ssh that asks a person", "", "", `"tagOwners"`, `"ssh":[{"action":"check","src":["autogroup:admin"],"dst":["tag:searx"],"users":["root"]}],"tagOwners"`)
	edit("a funnel", Opens, ByAddress, `"tagOwners"`, `"nodeAttrs":[{"target":["tag:searx"],"attr":["funnel"]}],"tagOwners"`)
	edit("routes approve themselves", Opens, ByAddress, `"tagOwners"`, `"autoApprovers":{"exitNode":["tag:runner"]},"tagOwners"`)
	edit("one more port", "", "", `"dst":["tag:searx:8080"]}]`, `"dst":["tag:searx:8080","tag:vault:8384"]}]`)
	edit("comments and commas", "", "", `"acls":[`, "// who reaches whom\n\"acls\":[", `"deny":["tag:searx:22"]`, `"deny":["tag:searx:22",], /* not ssh */`)
	edit("one more test", "", "", `"tests":[`, `"tests":[{"src":"tag:searx","deny":["tag:runner:22"]},`)
	update("a policy that is not one", acls, net(tailnet), net("acls: everything"), Unclear, ByAddress)
	one("a policy that overwrites unseen", step{acls, "create", "-", net(tailnet) + `,"overwrite_existing_content":true`, ""}, Weakens, ByAddress)
	one("the first policy of the tailnet", step{acls, "create", "-", net(tailnet), ""}, "", "")
	one("the policy of the tailnet goes", step{acls, "delete", net(tailnet), "-", ""}, Weakens, ByAddress)
	update("devices need no approval", "tailscale_tailnet_settings.this", `"devices_approval_on":true`, `"devices_approval_on":false`, Weakens, ByAddress)
	one("a key that can be used often", step{"tailscale_tailnet_key.vps", "create", "-", `"reusable":true,"tags":["tag:runner"]`, ""}, Opens, ByAddress)
	one("a key for one machine", step{"tailscale_tailnet_key.vps", "create", "-", `"reusable":false,"preauthorized":true,"tags":["tag:runner"],"expiry":3600`, ""}, "", "")
	one("a key that has been used is made anew", step{"tailscale_tailnet_key.vps", "delete,create", `"reusable":false`, `"reusable":false,"tags":["tag:runner"]`, ""}, "", "")
	update("an exit to the internet", "tailscale_device_subnet_routes.this", `"routes":["10.0.0.0/24"]`, `"routes":["10.0.0.0/24","0.0.0.0/0"]`, Opens, ByAddress)
	one("a client for everything", step{"tailscale_oauth_client.this", "create", "-", `"scopes":["all"]`, ""}, Opens, ByAddress)
	one("a client for keys", step{"tailscale_oauth_client.this", "create", "-", `"scopes":["auth_keys"],"tags":["tag:runner"]`, ""}, "", "")

	// What nobody here knows.
	one("an unknown thing goes", step{"acme_database.this", "delete", `"name":"x"`, "-", ""}, Destroys, ByAddress)
	one("an unknown thing is made anew", step{"acme_database.this", "delete,create", `"name":"x"`, `"name":"y"`, `,"replace_paths":[["name"]]`}, Destroys, ByAddress)
	one("an unknown thing is replaced and left behind", step{"acme_database.this", "create,forget", `"name":"x"`, `"name":"y"`, ""}, Destroys, ByAddress)
	one("an unknown action", step{"acme_database.this", "vaporize", `"name":"x"`, `"name":"x"`, ""}, Unclear, ByNothing)
	one("known actions in an unknown order", step{"acme_database.this", "update,delete", `"name":"x"`, `"name":"x"`, ""}, Unclear, ByNothing)
	update("an unknown machine with another image", "acme_server.this", `"image":"a"`, `"image":"b"`, Reinstalls, ByAddress)
	update("an unknown thing loses its guard", "acme_database.this", `"deletion_protection":true`, `"deletion_protection":false`, Weakens, ByAddress)
	update("an unknown thing that a destroy would empty", "acme_database.this", `"skip_final_snapshot":false`, `"skip_final_snapshot":true`, Weakens, ByAddress)
	update("an unknown thing keeps less", "acme_database.this", `"backup":[{"retention_days":30}]`, `"backup":[{"retention_days":7}]`, Shrinks, ByAddress)
	update("an unknown thing keeps more", "acme_database.this", `"backup":[{"retention_days":7}]`, `"backup":[{"retention_days":30}]`, "", "")
	update("an unknown thing is called otherwise", "acme_database.this", `"name":"x"`, `"name":"y"`, "", "")
	one("a new unknown thing", step{"acme_database.this", "create", "-", `"name":"x"`, ""}, "", "")
	one("a password is made anew", step{"random_password.db", "delete,create", `"length":20`, `"length":30`, ""}, Destroys, ByAddress)
	one("a clock turns over", step{"time_rotating.month", "delete,create", `"rotation_days":30`, `"rotation_days":30`, ""}, "", "")
	one("a value is computed anew", step{"terraform_data.x", "delete,create", `"input":1`, `"input":2`, ""}, "", "")
	all["one bad among many good"] = c{[]step{
		{vps, "no-op", server, server, ""}, {"acme_database.this", "create", "-", `"name":"x"`, ""}, {fast + "aws_s3_bucket_versioning.this", "delete", `"versioning_configuration":[]`, "-", ""},
		{"data.aws_caller_identity.this", "read", "-", "", ""}}, Weakens, ByAddress}
	all["nothing at all"] = c{}
	return all
}

// expendable is how the configuration in homelab-iac/terraform is judged.
var expendable = Options{Expendable: []string{"module.dev_learning"}}

func TestNoDangerousPlanPassesAndNoHarmlessOneIsRefused(t *testing.T) {
	all := corpus()
	dangerous, harmless := 0, 0
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			var texts []string
			for _, s := range c.steps {
				texts = append(texts, s.json(t))
			}
			p, err := Read(strings.NewReader(planOf(texts...)))
			if err != nil {
				t.Fatal(err)
			}
			found := Judge(p, expendable)
			if c.rule == "" {
				for _, f := range found {
					t.Errorf("refused: %s %s: %s", f.Address, f.Rule, f.What)
				}
				return
			}
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == c.rule && f.Cover == c.cover }) {
				t.Fatalf("want %s, covered by %s; found %+v", c.rule, c.cover, found)
			}
			for _, f := range found {
				if f.Address == "" || f.What == "" || f.Cure == "" || strings.Contains(f.What+f.Cure, "hush") || f.Cover == ByHost && f.Host == "" {
					t.Errorf("%+v", f)
				}
			}
		})
		if c.rule == "" {
			harmless++
		} else {
			dangerous++
		}
	}
	if dangerous < 60 || harmless < 40 {
		t.Errorf("%d dangerous and %d harmless plans: the corpus has shrunk", dangerous, harmless)
	}
	t.Logf("%d dangerous plans, %d harmless ones", dangerous, harmless)
}

// Every plan of testdata is a whole file; its name says how it must be judged: refused-RULE-... or passes-...
func TestWholePlansAreJudged(t *testing.T) {
	files, err := filepath.Glob("testdata/*-*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Read(f)
		f.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := Judge(p, expendable)
		verdict, rest, _ := strings.Cut(name, "-")
		switch verdict {
		case "passes":
			if len(found) > 0 {
				t.Errorf("%s: %+v", name, found)
			}
		case "refused":
			if !slices.ContainsFunc(found, func(f Finding) bool { return strings.HasPrefix(rest, string(f.Rule)) }) {
				t.Errorf("%s: %+v", name, found)
			}
		}
	}
}

func TestWhatIsAroundAPlanIsJudgedToo(t *testing.T) {
	good := step{vps, "no-op", server, server, ""}.json(t)
	bad := step{fast + "aws_s3_bucket.this", "delete", `"bucket":"b"`, "-", ""}.json(t)
	data := step{"module.a.terraform_data.x[0]", "create", "-", `"input":1`, ""}.json(t)
	for name, c := range map[string]struct {
		text string
		want Rule
	}{
		"a plan that ended with an error": {strings.Replace(planOf(good), `"errored":false`, `"errored":true`, 1), Unclear},
		"something that is put off":       {strings.Replace(planOf(good), `"timestamp"`, `"deferred_changes":[{"reason":"unknown","resource_change":`+bad+`}],"timestamp"`, 1), Destroys},
		"a provider's action":             {strings.Replace(planOf(good), `"timestamp"`, `"action_invocations":[{"address":"action.acme_wipe.x"}],"timestamp"`, 1), Runs},
		"a provisioner":                   {strings.Replace(planOf(data), `"timestamp"`, `"configuration":{"root_module":{"module_calls":{"a":{"module":{"resources":[{"address":"terraform_data.x","provisioners":[{"type":"local-exec"}]}]}}}}},"timestamp"`, 1), Runs},
		"something ephemeral":             {planOf(good, strings.Replace(strings.Replace(resource("vault_secret", `{"actions":["open"],"before":null,"after":null}`), `"managed"`, `"ephemeral"`, 1), "x", "y", 1)), ""},
		"a managed thing that is opened":  {planOf(resource("vault_secret", `{"actions":["open"],"before":null,"after":null}`)), Unclear},
		"what others changed":             {strings.Replace(planOf(good), `"timestamp"`, `"resource_drift":[`+bad+`],"timestamp"`, 1), ""},
		"what a replacement left":         {planOf(strings.Replace(step{vps, "delete", server, "-", ""}.json(t), `"change"`, `"deposed":"12345678","change"`, 1)), Cancels},
	} {
		p, err := Read(strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := Judge(p, expendable)
		if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == c.want }) {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
