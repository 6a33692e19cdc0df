package services

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheCommandCallsTheProgramInItsContainer runs bin/llm-runner with a docker that says how it was called.
func TestTheCommandCallsTheProgramInItsContainer(t *testing.T) {
	const file = "compose --file /opt/homelab/services/llm-runner/compose.yaml "
	for name, c := range map[string]struct{ user, id, args, want string }{
		"while it runs":             {"0", "4f2a", "job list --state held", "exec -T llm-runner /llm-runner job list --state held --config /config/runner.yaml --data /data"},
		"while it does not":         {"0", "", "restore --yes /data/runner.db.before-1", "run --rm -T llm-runner restore --yes /data/runner.db.before-1 --config /config/runner.yaml --data /data"},
		"help knows no other flags": {"0", "4f2a", "help job", "exec -T llm-runner /llm-runner help job"},
		"somebody else":             {"1000", "4f2a", "doctor", "sudo llm-runner doctor"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for program, text := range map[string]string{"docker": "case \"$*\" in *'ps --status running --quiet llm-runner') echo $ID ;; *) echo \"$@\" ;; esac", "id": "echo $WHO"} {
				if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "llm-runner/bin/llm-runner", strings.Fields(c.args)...)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "ID="+c.id, "WHO="+c.user)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.user == "0") || !strings.Contains(string(out), c.want) || c.user == "0" && string(out) != file+c.want+"\n" {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
