package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/pass"
)

const canary = "canary-hush-42"

// wipes is a plan that installs a server again, in place, with a secret in it.
func wipes(t *testing.T, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.json")
	text := `{"format_version":"1.2","terraform_version":"1.11.4","planned_values":{},"variables":{"x":{"value":"` + canary + `"}},"resource_changes":[{"address":"module.vps[\"contabo\"].contabo_instance.this",
		"mode":"managed","type":"contabo_instance","name":"this","provider_name":"registry.terraform.io/contabo/contabo","change":{"actions":["update"],
		"before":{"display_name":"contabo","user_data":"` + canary + `1","root_password":1},"after":{"display_name":"contabo","user_data":"` + canary + `2","root_password":1},
		"after_unknown":{},"before_sensitive":{"user_data":true},"after_sensitive":{"user_data":true}}}` + more + `],"errored":false}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const losesVersions = `,{"address":"aws_s3_bucket_versioning.x","mode":"managed","type":"aws_s3_bucket_versioning","name":"x","provider_name":"p","change":{"actions":["delete"],"before":{},"after":null}}`

func TestPlanCheckRefusesUntilTheTokenCoversEverything(t *testing.T) {
	dir := t.TempDir()
	key, err := pass.Key(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	token := func(host string, addresses ...string) string {
		text, err := pass.Sign(pass.Pass{Host: host, Snapshots: []string{"abc"}, Addresses: addresses}, key, pass.ReadClock())
		if err != nil {
			t.Fatal(err)
		}
		return write("token-"+host+strings.Join(addresses, "-"), text)
	}
	trusted := write("trusted", pass.Line("contabo", key)+"\n"+pass.Line("davas", key)+"\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no token", []string{wipes(t, "")}, 4, "homelab precheck on contabo"},
		{"its token", []string{wipes(t, ""), "--token", token("contabo"), "--trusted", trusted}, 0, "signed for, by contabo"},
		{"a token and nobody to trust", []string{wipes(t, ""), "--token", token("contabo")}, 4, "--trusted"},
		{"another token", []string{wipes(t, ""), "--token", token("davas"), "--trusted", trusted}, 4, "1 of 1 findings"},
		{"more than the token says", []string{wipes(t, losesVersions), "--token", token("contabo"), "--trusted", trusted}, 4, "1 of 2 findings"},
		{"a typed address", []string{wipes(t, losesVersions), "--token", token("contabo", "aws_s3_bucket_versioning.x"), "--trusted", trusted}, 0, "passes"},
		{"a token that is none", []string{wipes(t, ""), "--token", write("rubbish", "rubbish"), "--trusted", trusted}, 4, "it is not a token"},
		{"no file", []string{"/not/there.json"}, 4, "no such file"},
		{"no plan", []string{write("text", "hello")}, 4, "not whole JSON"},
		{"nothing named", nil, 2, "name one file"},
		{"as JSON", []string{wipes(t, ""), "--json"}, 4, `"rule": "reinstalls"`},
	} {
		code, stdout, stderr := homelab(t, "", append([]string{"plan-check"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", c.name, code, c.code, c.want, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, canary) {
			t.Errorf("%s: a value of the plan is printed", c.name)
		}
	}
}

func TestPlanCheckReadsTheStandardInput(t *testing.T) {
	text, err := os.ReadFile("../../internal/plan/testdata/terraform-1.11.json")
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := homelab(t, string(text), "plan-check", "-", "--json")
	var v verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != 0 || v.Verdict != "passes" || v.Counts["create"] != 1 || len(v.Plan) != 64 || v.Findings == nil {
		t.Errorf("exit %d, %v: %s", code, err, stdout)
	}
}
