package ansible

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const said = `PLAY [Prepare every machine] ****

TASK [base : Install the packages] *********************************************
[ERROR]: Task failed: Module failed: No package matching 'nope' is available
Origin: /x/main.yml:3:3
fatal: [drill]: FAILED! => changed=false
  msg: No package matching 'nope' is available

PLAY RECAP *********************************************************************
alpha                      : ok=3    changed=1    unreachable=0    failed=0    skipped=4
drill                      : ok=31   changed=12   unreachable=0    failed=1    skipped=4
`

func TestTheCountsOfOneMachineAreRead(t *testing.T) {
	if r, ok := ReadRecap(said, "drill"); !ok || r != (Recap{31, 12, 0, 1}) {
		t.Errorf("%+v %v", r, ok)
	}
	if r, ok := ReadRecap(said, "other"); ok {
		t.Errorf("%+v of a machine that took no part", r)
	}
}

func TestAFaultNamesItsTask(t *testing.T) {
	if got := Fault(said); !strings.HasPrefix(got, "TASK [base : Install the packages]") || !strings.Contains(got, "No package matching") {
		t.Errorf("%q", got)
	}
	if got := Fault("sudden\n end"); got != "sudden end" {
		t.Errorf("%q", got)
	}
}

// fakeAnsible stands where ansible-playbook does: it copies its variables beside itself and says what script says.
func fakeAnsible(t *testing.T, script string) Runner {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"site.yml": "", "setup.sh": "#!/bin/sh\necho " + dir + "/bin\n",
		"bin/ansible-playbook": "#!/bin/sh\nfor a; do case $a in @*) cat ${a#@} >>" + dir + "/vars;; esac; done\necho \"$@\" >" + dir + "/args\n" + script + "\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSecretsAreNotOnTheCommandLine(t *testing.T) {
	r := fakeAnsible(t, "echo 'drill : ok=1 changed=0 unreachable=0 failed=0'")
	got, err := r.Run(t.Context(), Run{Playbook: "site.yml", Host: "drill", Inventories: []string{"a", "b"}, Tags: []string{"x", "y"}, Vars: map[string]string{"password": "s3cr3t"}})
	if err != nil || got.OK != 1 {
		t.Fatal(got, err)
	}
	args, _ := os.ReadFile(r.Dir + "/args")
	vars, _ := os.ReadFile(r.Dir + "/vars")
	if strings.Contains(string(args), "s3cr3t") || !strings.Contains(string(vars), "s3cr3t") || !strings.Contains(string(args), "-i a -i b") || !strings.Contains(string(args), "--tags x,y") {
		t.Errorf("%s\n%s", args, vars)
	}
	for _, word := range strings.Fields(string(args)) {
		if file, ok := strings.CutPrefix(word, "@"); ok {
			if _, err := os.Stat(file); err == nil {
				t.Errorf("%s was left", file)
			}
		}
	}
}

func TestAPlaybookThatDidNothingOrFailedIsAnError(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'fatal: [drill]: no route'; exit 2": "no route",
		"echo 'skipping: no hosts matched'":       "it did nothing on drill",
	} {
		if _, err := fakeAnsible(t, script).Run(t.Context(), Run{Playbook: "site.yml", Host: "drill"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	if _, err := Open(t.Context(), t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "site.yml") {
		t.Error(err)
	}
}
