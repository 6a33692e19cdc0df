package catalog

import (
	"slices"
	"strings"
)

// Monitors in Uptime Kuma are named after what they watch. The names are also what push tokens are made from.

// BackupMonitor hears of every run; only its explicit "down" is to be trusted, since a push monitor that hears once a day never
// fires when Kuma restarts every day (uptime-kuma#6069).
func BackupMonitor(tier, host string) string { return "backup " + tier + " on " + host }

// FreshMonitor hears every few minutes how old the newest good snapshot of a service is.
func FreshMonitor(tier, service string) string { return "fresh " + service + " " + tier }

// CheckMonitor hears of the checks of a repository.
func CheckMonitor(tier, host string) string { return "check " + tier + " on " + host }

// HostMonitor hears of a machine's disk and keys.
func HostMonitor(host string) string { return "disk and keys of " + host }

// DrillMonitor hears whether a restore was proved lately.
const DrillMonitor = "restore proved"

// Monitors are the names of all monitors of all services, in order.
func Monitors(all []Service) []string {
	names := []string{DrillMonitor}
	for _, t := range Tiers {
		for _, s := range On(all, "", t.Name) {
			names = append(names, FreshMonitor(t.Name, s.Name), BackupMonitor(t.Name, s.Host), CheckMonitor(t.Name, s.Host), HostMonitor(s.Host))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Rare says whether a monitor hears only once a run. Its silence means nothing: that is what the fresh monitors are for.
func Rare(monitor string) bool { return strings.HasPrefix(monitor, "backup ") }

// runbooks are the pages below docs/runbooks that say what to do, by what the name of an incident begins with.
var runbooks = []struct{ begins, page string }{
	{"fresh ", "backup-late"},
	{"backup ", "backup-failed"},
	{"check ", "repository-check"},
	{"disk and keys of ", "disk-and-keys"},
	{DrillMonitor, "restore-not-proved"},
	{"the fast repository", "repository-unreadable"},
	{"the slow repository", "repository-unreadable"},
	{"Uptime Kuma", "kuma"},
	{"deployment of ", "deployment"},
	{"what is rented", "drift"},
}

// Runbook is the page that says what to do about an incident, as a name below docs/runbooks; the list of all pages for one that has none.
func Runbook(incident string) string {
	for _, r := range runbooks {
		if strings.HasPrefix(incident, r.begins) {
			return r.page + ".md"
		}
	}
	return "README.md"
}

// Runbooks are all pages that Runbook leads to.
func Runbooks() (pages []string) {
	for _, r := range runbooks {
		pages = append(pages, r.page+".md")
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}
