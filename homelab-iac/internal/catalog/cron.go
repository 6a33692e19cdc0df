package catalog

import (
	"fmt"
	"strings"
)

// Cron is /etc/cron.d/homelab-backup of one machine: the schedule that people see. systemd does the work, so that nothing runs
// twice at once and everything is bounded in time; --wait makes cron mail what fails.
//
// With maintenance it forgets and prunes every repository, too: that is for the one machine that holds the maintenance keys, which
// had better not be one that is backed up.
func Cron(all []Service, host string, maintenance bool) string {
	var b strings.Builder
	b.WriteString("# Made from homelab-iac/services by role restic; change it there.\nSHELL=/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n")
	line := func(when, unit, what string) {
		fmt.Fprintf(&b, "%s root systemctl start --wait %s.service # %s\n", when, unit, what)
	}
	for _, t := range Tiers {
		if maintenance {
			line(t.Prune, "homelab-prune-"+t.Name, "what is old goes from the "+t.Name+" repository, and the space is freed")
		}
		names := []string{}
		for _, s := range On(all, host, t.Name) {
			names = append(names, s.Name)
		}
		if len(names) == 0 {
			continue
		}
		line(t.Schedule, "homelab-backup-"+t.Name, strings.Join(names, " "))
		line(t.Checks, "homelab-check-"+t.Name, "a part of the "+t.Name+" repository is read again")
	}
	line("@reboot", "homelab-catchup", "what was missed while the machine was off")
	line("*/5 * * * *", "homelab-watch", "tells Uptime Kuma how old the newest good snapshots are")
	return b.String()
}
