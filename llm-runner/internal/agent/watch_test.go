package agent

import (
	"strings"
	"testing"
	"time"
)

func TestMetricsOfBackups(t *testing.T) {
	now := time.Date(2026, 2, 1, 7, 0, 0, 0, time.UTC)
	text := `# HELP homelab_backup_good 1 when the last run made a whole snapshot.
# TYPE homelab_backup_good gauge
homelab_backup_good{tier="fast",service="gitea"} 0
homelab_backup_good{tier="fast",service="vault"} 1
homelab_backup_good{tier="fast",service="new"} 0
homelab_backup_good{tier="slow",service="photos"} 1
homelab_backup_last_good_timestamp_seconds{tier="fast",service="gitea"} 1769817600
homelab_backup_last_good_timestamp_seconds{tier="fast",service="vault"} 1.7699112e+09
homelab_backup_last_good_timestamp_seconds{tier="slow",service="photos"} 1768000000
homelab_backup_files{tier="fast",service="odd \"name\", x"} 3
homelab_drill_good{machine="prod"} 0
homelab_drill_timestamp_seconds{machine="prod"} 1769900000
homelab_drill_good{machine="contabo"} 1
homelab_drill_timestamp_seconds{machine="contabo"} 1769900000
homelab_drill_good{machine="old"} 1
homelab_drill_timestamp_seconds{machine="old"} 1768000000
node_load1 0.5
homelab_backup_good{tier="fast" broken
`
	wrong, ok := Metrics(text, now)
	want := "gitea (fast): the last run made no whole snapshot; the last one is of Sat 31 Jan 00:00\nnew (fast): the last run made no whole snapshot, and none is known\n" +
		"photos (slow): no whole snapshot since Fri 9 Jan 23:06\nold: no drill of a restore since Fri 9 Jan 23:06\nprod: its data were not the same in the last drill of a restore"
	if got := strings.Join(wrong, "\n"); got != want || ok != 2 {
		t.Errorf("%d well, and\n%s", ok, got)
	}
	if wrong, ok := Metrics("", now); len(wrong) != 0 || ok != 0 {
		t.Error(wrong, ok)
	}
}

func TestAStatusPageOfKuma(t *testing.T) {
	page := `{"config":{"slug":"homelab"},"publicGroupList":[{"name":"Services","monitorList":[{"id":1,"name":"gitea"},{"id":2,"name":"backup fast on prod"},{"id":3,"name":"never"},{"id":4,"name":"resting"}]}]}`
	beats := `{"heartbeatList":{"1":[{"status":0,"time":"2026-02-01 05:00:00.000","msg":""},{"status":1,"time":"2026-02-01 06:00:00.000","msg":"OK"}],"2":[{"status":0,"msg":"restic: repository is\nlocked"}],"4":[{"status":3}]},"uptimeList":{}}`
	wrong, ok, err := Kuma([]byte(page), []byte(beats))
	if err != nil || ok != 2 || strings.Join(wrong, "\n") != "backup fast on prod is down: restic: repository is locked" {
		t.Errorf("%d, %q, %v", ok, wrong, err)
	}
	if _, _, err := Kuma([]byte("<html>"), []byte(beats)); err == nil {
		t.Error("a page that is none")
	}
}
