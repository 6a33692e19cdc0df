package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAGreenProofOfOneMachineHidesNoRedOneOfAnother(t *testing.T) {
	state := t.TempDir()
	now := time.Now()
	write := func(of, verdict string, age time.Duration) {
		t.Helper()
		dir := proofDir(state, "here", of)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`{"ended": %q, "verdict": %q, "reason": "a file is missing"}`, now.Add(-age).Format(time.RFC3339), verdict)
		if err := os.WriteFile(filepath.Join(dir, "restore-report.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := proofs(state); len(got) > 0 {
		t.Errorf("without a drill: %+v", got)
	}
	for _, c := range []struct {
		of, verdict string
		age         time.Duration
		trouble     string
	}{
		{"", "green", time.Hour, ""},
		{"contabo", "red", 2 * time.Hour, "contabo: its verdict is red: a file is missing"},
		{"prod-services", "green", time.Hour, "contabo: its verdict is red"},
		{"here", "red", time.Hour, "failed: its verdict is red: a file is missing; contabo: its verdict is red"},
		{"here", "green", time.Hour, "contabo: its verdict is red"},
		{"contabo", "green", 10 * 24 * time.Hour, "10d"},
		{"contabo", "green", time.Hour, ""},
		{"prod-services", "red", time.Hour, "prod-services: its verdict is red"},
	} {
		write(c.of, c.verdict, c.age)
		got := proved(proofs(state), now)
		if (got.Trouble == "") != (c.trouble == "") || !strings.Contains(got.Trouble, c.trouble) {
			t.Errorf("after a %s drill of %q: %q, want %q", c.verdict, c.of, got.Trouble, c.trouble)
		}
	}
	metrics := drillMetrics(proofs(state), "here")
	for _, want := range []string{"# TYPE homelab_drill_good gauge", `homelab_drill_good{machine="here"} 1`, `homelab_drill_good{machine="prod-services"} 0`,
		fmt.Sprintf(`homelab_drill_timestamp_seconds{machine="contabo"} %d`, now.Add(-time.Hour).Unix())} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s:\n%s", want, metrics)
		}
	}
}

func TestARestoreIsAsFastAsTheLastDrillOfThatMachine(t *testing.T) {
	m := &machine{}
	m.State, m.Host = t.TempDir(), "contabo"
	write := func(of string, bytes int) {
		t.Helper()
		dir := proofDir(m.State, "here", of)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf(`{"services": [{"service": "a", "bytes": %d, "steps": [{"phase": "fetch", "seconds": 10}]}]}`, bytes)
		if err := os.WriteFile(filepath.Join(dir, "restore-report.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if rate, why := m.rate(); rate != usualRate || !strings.Contains(why, "a guess") {
		t.Errorf("without a drill: %v %s", rate, why)
	}
	write("", 1_000_000_000)
	if rate, _ := m.rate(); rate != 100e6 {
		t.Errorf("with this machine's own drill: %v", rate)
	}
	write("contabo", 2_000_000_000)
	if rate, why := m.rate(); rate != 200e6 || !strings.Contains(why, "as in the drill") {
		t.Errorf("with its own: %v %s", rate, why)
	}
}
