package plan

import (
	"fmt"
	"slices"
	"strings"
)

// reinstall are the attributes whose change makes Contabo's provider install the server again, in place: shouldReinstall in its
// contabo/resource_instance.go. existing_instance_id makes a create into such an update of a server that is there already.
var reinstall = []string{"image_id", "user_data", "ssh_keys", "root_password", "default_user"}

func instance(c *court) {
	r := c.r
	var hit []string
	for _, name := range reinstall {
		if r.Kind() != Create && r.Changes(name) {
			hit = append(hit, name)
		}
	}
	const cure = "put it under ignore_changes; if the machine shall be wiped, run homelab precheck on it first"
	switch {
	case len(hit) > 0 && r.Imported:
		c.find(Reinstalls, ByHost, fmt.Sprintf("the server is taken over and installed again at once: the provider never reads %s back, so to it they have changed", strings.Join(hit, ", ")), cure)
	case len(hit) > 0 && r.Kind() != Replace:
		c.find(Reinstalls, ByHost, fmt.Sprintf("the plan says update, and the provider installs the server again when %s changes: everything on it is lost", strings.Join(hit, ", ")), cure)
	}
	if id := r.text(after, "existing_instance_id"); id != "" && (r.Kind() == Create || r.Changes("existing_instance_id")) {
		c.find(Reinstalls, ByHost, "existing_instance_id makes the provider take a server over and install it again", "use an import block, and ignore_changes for "+strings.Join(reinstall, ", "))
	}
	if r.Changes("cancel_date") && (r.get(after, "cancel_date") != nil && !r.is(after, "", "cancel_date") || r.unknown("cancel_date")) {
		c.find(Cancels, ByHost, "a date is set on which the contract ends", "take cancel_date out; if the machine shall go, run homelab precheck on it first")
	}
}

// anywhere are the addresses that mean everybody.
func anywhere(cidr string) bool {
	return slices.Contains([]string{"0.0.0.0/0", "::/0", "0.0.0.0", "::", "*", "0::/0"}, strings.TrimSpace(cidr))
}

func firewall(c *court) {
	r := c.r
	if r.is(before, "active", "status") && !r.is(after, "active", "status") {
		c.find(Opens, ByAddress, "the firewall is turned off", "leave its status active")
	}
	for _, id := range asList(r.get(before, "instance_ids")) {
		if !slices.ContainsFunc(asList(r.get(after, "instance_ids")), func(v any) bool { return v == id }) {
			c.find(Opens, ByAddress, "a machine is taken out of the firewall", "leave instance_ids as they are, or give the machine another firewall first")
			break
		}
	}
	if r.unknown("rules") {
		c.find(Unclear, ByAddress, "its rules are known only when the plan is applied", "write addresses and ports out")
		return
	}
	was := openPorts(r.get(before, "rules"))
	for _, port := range openPorts(r.get(after, "rules")) {
		if !slices.Contains(was, port) {
			c.find(Opens, ByAddress, "port "+port+" is opened to the whole internet", "name the addresses that need it, or reach it over the tailnet")
		}
	}
}

// openPorts lists what a firewall lets everybody reach: "tcp 443". Rules without addresses are for everybody.
func openPorts(list any) []string {
	var open []string
	for _, set := range asList(list) {
		for _, in := range asList(get(set, "inbound")) {
			if status, ok := get(in, "status").(string); ok && status == "inactive" {
				continue
			}
			from := asList(get(in, "src_cidr"))
			everybody := len(from) == 0
			for _, f := range from {
				all := append(texts(get(f, "ipv4")), texts(get(f, "ipv6"))...)
				everybody = everybody || len(all) == 0 || slices.ContainsFunc(all, anywhere)
			}
			if !everybody {
				continue
			}
			protocol, _ := get(in, "protocol").(string)
			ports := texts(get(in, "dest_ports"))
			if len(ports) == 0 {
				ports = []string{"all"}
			}
			for _, p := range ports {
				open = append(open, strings.TrimSpace(protocol+" "+p))
			}
		}
	}
	return open
}

// machineOf judges a virtual machine at home. Its provider replaces what it cannot change, which the plan shows.
func machineOf(c *court) {
	for _, name := range []string{"running", "autostart"} {
		if c.r.Kind() == Update && c.r.is(before, true, name) && c.r.Changes(name) && !c.r.is(after, true, name) {
			c.find(Weakens, ByHost, name+" is turned off: the machine stands still, now or after the next start of its host", "leave it on; to stop it for a while, use virsh shutdown")
		}
	}
}
