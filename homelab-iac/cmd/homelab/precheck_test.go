package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/precheck"
)

func TestPrecheckOfABareMachineNamesWhatIsMissingAndSignsNothing(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "homelab.yaml")
	text := "host: prod-services\nstate: " + dir + "/state\ndumps: " + dir + "/dumps\nrepositories:\n  fast: {url: /nowhere, password: /nowhere}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := homelab(t, "prod-services\n", "precheck", "--json", "--config", config)
	var r precheck.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || len(r.SignOffs) != 12 || r.Token != "" {
		t.Fatalf("exit %d, %v: %s\n%s", code, err, stdout, stderr)
	}
	for i, s := range r.SignOffs {
		if s.Signed || s.Evidence == "" || s.Cure == "" || s.Number != i+1 {
			t.Errorf("%+v", s)
		}
	}
	code, stdout, _ = homelab(t, "", "precheck", "--look", "--config", config)
	if code != 1 || strings.Count(stdout, "MISSING") != 12 || !strings.Contains(stdout, "prod-services must not be wiped") || !strings.Contains(stdout, "-> ") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if code, _, stderr := homelab(t, "", "precheck", "verify", "--config", config); code != 4 || !strings.Contains(stderr, "it is not a token") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestPrecheckWantsAMachineOfTheCatalog(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "homelab.yaml")
	if err := os.WriteFile(config, []byte("host: nobody\nstate: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := homelab(t, "", "precheck", "--config", config); code != 2 || !strings.Contains(stderr, "the catalog has no service on nobody") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for bad, want := range map[string]string{
		"terraform: {state: \"http://example.org/x\", key: \"env:K\"}": "terraform.state",
		"terraform: {state: \"https://example.org/x\"}":                "terraform.key",
		"precheck: {kit: here}":                                        "precheck.kit",
		"precheck: {ways: [{what: SSH}]}":                              "precheck.ways[0]",
		"precheck: {surprise: 1}":                                      "surprise",
	} {
		if err := os.WriteFile(config, []byte("host: contabo\nstate: "+dir+"\n"+bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := homelab(t, "", "precheck", "--config", config); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d: %s", bad, code, stderr)
		}
	}
}

func TestWhereNoStateIsKeptTheCopySaysSo(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "homelab.yaml")
	if err := os.WriteFile(config, []byte("host: contabo\nstate: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := homelab(t, "", "state", "export", dir+"/copy", "--config", config); code != 0 || !strings.Contains(stderr, "terraform.state is not set") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := homelab(t, "", "state", "open", dir+"/copy", "--key", config); code != 1 || !strings.Contains(stderr, "no state of Terraform is kept") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
