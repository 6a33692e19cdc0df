package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
)

var catalogPageCommands = []command{{
	name: "catalog page", args: "[flags]", summary: "print the handbook's page of all services, docs/services.md",
	help: `The page is made from the folders of services, so that it says what is there. A test compares it with the file.

Example:
  homelab catalog page --services homelab-iac/services >docs/services.md

Exit codes: 0 printed, 1 the catalog cannot be read, 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		dir := fs.String("services", "", "a `DIR` of descriptions")
		return func(context.Context) error {
			all, err := loadCatalog(*dir)
			if err != nil {
				return err
			}
			fmt.Fprint(c.stdout, catalogPage(all))
			return nil
		}
	},
}}

// catalogPage is the page of all services, machine by machine.
func catalogPage(all []catalog.Service) string {
	var b strings.Builder
	b.WriteString("<!-- Made by homelab catalog page; change the folders of homelab-iac/services, then: homelab catalog page >docs/services.md -->\n" +
		"# Services\n\nWhat runs where, how it is reached, and what is kept of it. Each name leads to the service's folder.\n")
	hosts := map[string][]catalog.Service{}
	for _, s := range all {
		hosts[s.Host] = append(hosts[s.Host], s)
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		fmt.Fprintf(&b, "\n## %s\n\n| Service | What it is | Images | Reached at | Kept | May lose | Back within |\n|---|---|---|---|---|---|---|\n", host)
		mine := hosts[host]
		slices.SortFunc(mine, func(a, b catalog.Service) int { return strings.Compare(a.Name, b.Name) })
		for _, s := range mine {
			fmt.Fprintf(&b, "| [%s](../homelab-iac/services/%s) | %s | %s | %s | %s | %s | %s |\n", s.Name, s.Name, cell(s.About), images(s), ports(s), kept(s), loses(s), back(s))
		}
	}
	b.WriteString("\n\"May lose\" is how old the newest good backup may become (RPO), by tier; \"back within\" is how long a restore may take (RTO). How to bring one back: [restore.md](restore.md).\n")
	return b.String()
}

func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

func list(all []string) string {
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, "<br>")
}

func images(s catalog.Service) string {
	var all []string
	for _, k := range s.Compose.Containers {
		name, tag, _ := catalog.SplitImage(k.Image)
		all = append(all, "`"+name+":"+tag+"`")
	}
	return list(all)
}

func ports(s catalog.Service) string {
	var all []string
	for _, k := range s.Compose.Containers {
		for _, p := range k.Ports {
			address := strings.NewReplacer("${TAILNET_ADDRESS:?set the machine's Tailscale address}", "tailnet", "127.0.0.1", "this machine").Replace(p.Text)
			if rest, ok := strings.CutPrefix(address, "${TAILNET_ADDRESS"); ok {
				_, rest, _ = strings.Cut(rest, "}")
				address = "tailnet" + rest
			}
			if at := strings.LastIndex(address, ":"); at > 0 { // the port inside the container matters to nobody outside
				address = address[:at]
			}
			if p.Comment != "" {
				address += ": " + cell(strings.TrimLeft(p.Comment, "# "))
			}
			all = append(all, address)
		}
	}
	return list(all)
}

func kept(s catalog.Service) string {
	if s.Nothing != "" {
		return "nothing: " + cell(s.Nothing)
	}
	var all []string
	for _, p := range s.Backup.Paths {
		all = append(all, "`"+p.Path+"`")
	}
	for _, d := range s.Backup.Dumps {
		all = append(all, "dump `"+d.Name+"`")
	}
	return list(all)
}

func loses(s catalog.Service) string {
	var all []string
	for _, tier := range slices.Sorted(maps.Keys(s.Backup.RPO)) {
		all = append(all, tier+" "+span(s.Backup.RPO[tier]))
	}
	return list(all)
}

func back(s catalog.Service) string {
	if s.Restore.RTO == 0 {
		return "-"
	}
	return span(s.Restore.RTO)
}

// span is a time as people say it: 26h, 8d, 20m.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}
