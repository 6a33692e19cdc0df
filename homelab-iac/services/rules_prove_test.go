//go:build prove

package services

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// promtool is Prometheus' own checker: the one that is installed, or Debian's, unpacked where nothing else sees it.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	dir := t.TempDir()
	get := exec.CommandContext(t.Context(), "sh", "-euc", "apt-get download prometheus && dpkg -x prometheus_*.deb .")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("neither promtool nor Debian's package prometheus can be had: %v\n%s", err, out)
	}
	return filepath.Join(dir, "usr/bin/promtool")
}

func TestPrometheusTakesItsRulesAndTheyFireWhenTheyShould(t *testing.T) {
	tool := promtool(t)
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", "prometheus/prometheus.yml"},
		{"check", "rules", "prometheus/rules/llm-runner.rules.yml"},
		{"test", "rules", "prometheus/rules/llm-runner.test.yml"},
	} {
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
