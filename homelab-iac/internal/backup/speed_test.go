package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
)

// unchanged makes a vault of 10,000 notes, which homelab and bare restic have backed up, and returns how each does it again.
func unchanged(tb testing.TB) (ours, theirs func() time.Duration) {
	tb.Helper()
	m := newBench(tb)
	m.Repo.URL = filepath.Join(tb.TempDir(), "repo") // with a key that costs what a real one costs
	if err := m.Repo.Init(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	for n := range 10_000 {
		dir := filepath.Join(m.Dir, "src", fmt.Sprint(n/100))
		if n%100 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				tb.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n, ".md")), fmt.Appendf(nil, "# note %d\n", n), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	r := m.run()
	r.Services[0].Backup.Dumps, r.Services[0].Backup.Stop = nil, nil
	bare := restic.Backup{Host: "h", Tags: []string{"bare"}, Paths: []string{m.Dir + "/src"}}
	ours = func() time.Duration {
		begin := time.Now()
		if trouble := m.do(tb, r).Trouble(); trouble != "" {
			tb.Fatal(trouble)
		}
		return time.Since(begin)
	}
	theirs = func() time.Duration {
		begin := time.Now()
		if _, err := m.Repo.Backup(tb.Context(), bare, nil); err != nil {
			tb.Fatal(err)
		}
		return time.Since(begin)
	}
	ours() // the first reads everything
	theirs()
	return ours, theirs
}

// BenchmarkUnchangedVault compares the backup of a vault in which nothing changed with bare restic's. They take turns, and one round is one
// backup by each: what else the machine does is shared by both.
func BenchmarkUnchangedVault(b *testing.B) {
	ours, theirs := unchanged(b)
	var our, their time.Duration
	rounds := 0
	for b.Loop() {
		our += ours()
		their += theirs()
		rounds++
	}
	b.ReportMetric(our.Seconds()/float64(rounds), "s/homelab")
	b.ReportMetric(their.Seconds()/float64(rounds), "s/restic")
	b.ReportMetric(our.Seconds()/their.Seconds(), "homelab/restic")
}

// TestAnUnchangedVaultCostsHardlyMoreThanRestic compares the quickest of some turns, which what else the machine does has disturbed least.
func TestAnUnchangedVaultCostsHardlyMoreThanRestic(t *testing.T) {
	if os.Getenv("HOMELAB_PROVE") == "" {
		t.Skip("it takes half a minute: HOMELAB_PROVE=1")
	}
	ours, theirs := unchanged(t)
	our, their := ours(), theirs()
	for round := 1; round < 20 && (round < 5 || our.Seconds() > 1.2*their.Seconds()); round++ {
		our, their = min(our, ours()), min(their, theirs())
	}
	t.Logf("homelab %v, restic %v: %.3f times", our, their, our.Seconds()/their.Seconds())
	if our.Seconds() > 1.2*their.Seconds() {
		t.Errorf("an unchanged vault takes homelab %v and bare restic %v: more than 1.2 times", our, their)
	}
}
