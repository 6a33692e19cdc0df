package main

import (
	"cmp"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// AgentsConfig is about work on schedules. What agents do is in their own files.
type AgentsConfig struct {
	On       []string `yaml:"on"`       // built-in agents that run by themselves; others of them rest until somebody switches them on
	Timezone string   `yaml:"timezone"` // of schedules that name none; default the machine's
	Folder   string   `yaml:"folder"`   // of agents' files, below vault.path; default agents
	Notes    string   `yaml:"notes"`    // where their notes go, below vault.path; default Agent notes
	Daily    string   `yaml:"daily"`    // the daily note, below vault.path; default Daily/YYYY-MM-DD.md
	Topics   string   `yaml:"topics"`   // the note of topics to research; default Research topics.md
	Metrics  string   `yaml:"metrics"`  // folder of homelab's metrics, for briefings
	Kuma     string   `yaml:"kuma"`     // URL of a status page of Uptime Kuma, for briefings
}

// folder is where the person's agents are, below the vault.
func (a *AgentsConfig) folder() string { return cmp.Or(a.Folder, "agents") }

// zone is the time zone of schedules that name none.
func (a *AgentsConfig) zone() *time.Location {
	if z, err := time.LoadLocation(a.Timezone); err == nil && a.Timezone != "" {
		return z
	}
	return time.Local
}

// agents checks what belongs to agents.
func (v *validator) agents() {
	a := &v.c.Agents
	for i, name := range a.On {
		if !slices.Contains(builtInAgents(), name) {
			v.fault("agents.on", "%q (item %d) is no agent of the program: use some of %s; agents of your own run without being named here", name, i+1, strings.Join(builtInAgents(), ", "))
		}
	}
	if _, err := time.LoadLocation(a.Timezone); err != nil {
		v.fault("agents.timezone", "%q is no time zone: write for example Europe/Berlin", a.Timezone)
	}
	for key, p := range map[string]string{"folder": a.Folder, "notes": a.Notes, "daily": a.Daily, "topics": a.Topics} {
		if p != "" && (!filepath.IsLocal(p) || filepath.ToSlash(filepath.Clean(p)) != p || p == "." || strings.HasPrefix(p, ".")) {
			v.fault("agents."+key, "%q is no path below vault.path: write for example %s", p, map[string]string{"folder": "agents", "notes": "Agent notes", "daily": "Daily/YYYY-MM-DD.md", "topics": "Research topics.md"}[key])
		}
	}
	if a.Daily != "" && (!strings.HasSuffix(a.Daily, ".md") || !strings.Contains(a.Daily, "YYYY") || !strings.Contains(a.Daily, "MM") || !strings.Contains(a.Daily, "DD")) {
		v.fault("agents.daily", "%q does not name a note for each day: it needs YYYY, MM and DD and ends in .md, such as Daily/YYYY-MM-DD.md", a.Daily)
	}
	if a.Metrics = expand(a.Metrics); a.Metrics != "" {
		if st, err := os.Stat(a.Metrics); err != nil || !st.IsDir() {
			v.warn("agents.metrics", "is not a directory now; briefings name that instead of telling of backups: name the folder that restic_metrics names")
		}
	}
	if u, err := url.Parse(a.Kuma); a.Kuma != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || !strings.HasPrefix(u.Path, "/status/") || len(u.Path) == len("/status/")) {
		v.fault("agents.kuma", "%q is no status page: write its address, such as http://kuma:3001/status/homelab", a.Kuma)
	}
}
