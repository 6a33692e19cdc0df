package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"home.arpa/lab/internal/pages"
)

// homelab runs the program as a person would.
func homelab(t testing.TB, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestHelpAndWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 0, "backup run"},
		{[]string{"help"}, 0, "75 another backup"},
		{[]string{"nonsense"}, 2, `no command "nonsense"`},
		{[]string{"backup"}, 2, `no command "backup"; there are backup run, backup catchup`},
		{[]string{"help", "backup"}, 2, "there are backup run"},
		{[]string{"backup", "rnu"}, 2, `no command "backup rnu"; there are backup run`},
		{[]string{"help", "watch"}, 0, "Usage: homelab watch"},
		{[]string{"help", "backup", "run", "fast"}, 0, "Usage: homelab backup run"},
		{[]string{"watch", "now"}, 2, `"now" stands alone: this command takes flags only`},
		{[]string{"restore", "run", "vault"}, 2, "write --tags vault"},
		{[]string{"restore", "vault"}, 2, `there is no "restore vault": there are restore plan, restore run`},
		{[]string{"catalog", "corn"}, 2, "there are catalog cron"},
		{[]string{"backup", "run", "--help"}, 0, "Usage: homelab backup run fast|slow"},
		{[]string{"backup", "run"}, 2, "name the tier"},
		{[]string{"backup", "run", "hourly"}, 2, "there are fast and slow"},
		{[]string{"backup", "run", "fast", "--config", "/not/there"}, 2, "role restic writes it"},
		{[]string{"backup", "run", "fast", "--nonsense"}, 2, "not defined"},
		{[]string{"catalog"}, 0, "gitea"},
		{[]string{"catalog", "--json", "--host", "contabo"}, 0, `"Name": "qdrant"`},
		{[]string{"catalog", "cron", "--host", "contabo"}, 0, "15 3 * * * root systemctl start --wait homelab-backup-fast.service # llm-runner"},
		{[]string{"catalog", "cron", "--host", "davas", "--maintenance"}, 0, "15 6 * * 6 root systemctl start --wait homelab-prune-fast.service"},
		{[]string{"catalog", "cron"}, 2, "name the machine with --host: contabo"},
		{[]string{"catalog", "cron", "--host", "contaob"}, 2, "there are contabo, dev-learning, prod-services"},
		{[]string{"catalog", "cron", "--host", "contabo", "--json"}, 2, "not defined: -json"},
		{[]string{"backup", "init", "fast", "--json"}, 2, "not defined: -json"},
		{[]string{"catalog", "--services", "/not/there"}, 1, "/not/there is no folder"},
		{[]string{"catalog", "--services", t.TempDir()}, 1, "holds no service"},
		{[]string{"catalog", "--host", "nowhere"}, 2, "there are contabo, dev-learning, prod-services"},
	} {
		code, stdout, stderr := homelab(t, "", c.args...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("homelab %q: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, stdout, stderr)
		}
	}
}

// TestEveryCommandHasHelpWithExamplesAndExitCodes: and what the examples show, the commands take.
func TestEveryCommandHasHelpWithExamplesAndExitCodes(t *testing.T) {
	for _, cmd := range commands {
		code, stdout, _ := homelab(t, "", append(strings.Fields(cmd.name), "--help")...)
		if code != 0 || !strings.Contains(stdout, "Example") || !strings.Contains(stdout, "\n  homelab "+cmd.name) && !strings.Contains(stdout, "| homelab "+cmd.name) || !strings.Contains(stdout, "Exit codes: 0 ") {
			t.Errorf("homelab %s --help lacks examples or exit codes\n%s", cmd.name, stdout)
		}
		for _, c := range pages.Examples(cmd.help, "homelab") {
			i, words := commandOf(c.Words)
			if i < 0 {
				t.Errorf("homelab %s --help shows homelab %s", cmd.name, strings.Join(c.Words, " "))
				continue
			}
			fs, _ := commands[i].flags(&call{})
			if err := pages.Fits(fs, commands[i].args, words); err != nil {
				t.Errorf("homelab %s --help shows homelab %s: %v", cmd.name, strings.Join(c.Words, " "), err)
			}
		}
	}
}

func TestADumpThatIsWholeIsToldAsJSON(t *testing.T) {
	dir := t.TempDir()
	const none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // of no bytes
	for name, text := range map[string]string{"globals.sql": "", "a.dump": "",
		"manifest.json": `{"server": "17.2", "globals": {"name": "globals.sql", "sha256": "` + none + `"}, "databases": [{"file": {"name": "a.dump", "sha256": "` + none + `"}}]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := homelab(t, "", "restore", "verify-dump", dir, "--json")
	var m struct{ Server string }
	if err := json.Unmarshal([]byte(stdout), &m); code != 0 || err != nil || m.Server != "17.2" {
		t.Errorf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
}

func TestAMachineWithoutAKeySaysWhichOneItLacks(t *testing.T) {
	config := filepath.Join(t.TempDir(), "homelab.yaml")
	text := "host: prod-services\nstate: " + t.TempDir() + "\nrepositories:\n  fast: {url: /nowhere, password: /nowhere}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"backup run fast":         "repositories.fast.keys.backup",
		"backup maintenance fast": "has no maintenance key",
		"backup check slow":       "add repositories.slow",
		"watch":                   "has no restore key",
		"kuma sync":               "kuma.url",
		"measure --tags vault":    "vault runs on prod-services; is this that machine",
	} {
		code, stdout, stderr := homelab(t, "", append(strings.Fields(args), "--config", config)...)
		if code == 0 || !strings.Contains(stdout+stderr, want) {
			t.Errorf("homelab %s: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// TestMain lets the test's binary be the program that a restore's own steps call.
func TestMain(m *testing.M) {
	if os.Getenv("HOMELAB_CONFIG") != "" || os.Getenv("HOMELAB_TEST_REMOTE") != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		var p patience
		if text := os.Getenv("HOMELAB_TEST_PATIENCE"); text != "" {
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				panic(err)
			}
			ctx = context.WithValue(ctx, patient{}, p)
		}
		code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	flag.Parse()
	if os.Getenv("HOMELAB_PROVE") != "" { // programs that wait for disks and for each other: more at once than there are processors
		flag.Set("test.parallel", "6") //nolint:errcheck // it is a number
	}
	os.Exit(m.Run())
}

func TestRestoreGuideIsTheHandbookPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/restore.md")
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := homelab(t, "", "restore", "guide"); code != 0 || stdout != string(page) {
		t.Errorf("exit %d: what is printed is not docs/restore.md", code)
	}
}
