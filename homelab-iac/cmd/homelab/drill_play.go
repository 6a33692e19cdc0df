package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/ansible"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restore"
	"home.arpa/lab/homelab-iac/internal/site"
)

// measuredThere is where a machine that was made by site.yml keeps what a drill asks for.
const measuredThere = "/var/lib/homelab/drill"

// inventoryName is what the machine of a drill is called in its inventory: never like one that is backed up.
const inventoryName = "drill"

// byPlaybooks makes the machine by site.yml, with the kit as its only keys, and restores by restore.yml.
func (t *trial) byPlaybooks(ctx context.Context) (leave func(), err error) {
	leave = func() {}
	t.remote.measured = measuredThere
	dir, err := os.MkdirTemp("", "homelab-drill-")
	if err != nil {
		return leave, err
	}
	leave = func() { os.RemoveAll(dir) }
	inventory, err := t.inventory(dir)
	if err != nil {
		return leave, err
	}
	vars, err := t.vars()
	if err != nil {
		return leave, err
	}
	plays, err := ansible.Open(ctx, t.d.playbooks, t.c.stderr)
	if err != nil {
		return leave, err
	}
	run := ansible.Run{Playbook: "site.yml", Host: inventoryName, Inventories: []string{inventory}, Vars: vars}
	if t.d.varsIn != "" {
		run.VarFiles = []string{absolute(t.d.varsIn)}
	}
	if t.d.inventory != "" {
		run.Inventories = []string{absolute(t.d.inventory), inventory}
	}
	if err := t.stage("make the machine: site.yml", func() error { _, err := plays.Run(ctx, run); return err }); err != nil {
		return leave, err
	}
	if !t.d.lab && !t.d.keep {
		remove := leave
		leave = func() { t.standDown(ctx); remove() }
	}
	run.Playbook, run.Tags = "restore.yml", t.tags
	vars["restore_confirmed"], vars["restore_as_of"], vars["restore_tier"] = true, t.d.asOf, t.d.tier
	vars["restore_measure"], vars["restore_report"] = measuredThere, measuredThere+"/restore-report.json"
	return leave, t.stage("bring the data back: restore.yml", func() error {
		_, err := plays.Run(ctx, run)
		text, there := t.remote.run(ctx, nil, "cat "+measuredThere+"/restore-report.json")
		if there != nil {
			return errors.Join(err, there)
		}
		done, unreadable := restore.ReadReport(text)
		t.report.Services = done.Services
		return errors.Join(err, unreadable)
	})
}

// inventory writes one that holds the machine, in the groups that its services need.
func (t *trial) inventory(dir string) (string, error) {
	words := strings.Fields(t.d.ssh)
	if len(words) == 0 || filepath.Base(words[0]) != "ssh" {
		return "", usageError{fmt.Sprintf("--ssh %q: playbooks reach the machine by ssh and its options only", t.d.ssh)}
	}
	host := map[string]any{"ansible_host": t.d.host, "ansible_user": "root", "ansible_ssh_common_args": strings.Join(words[1:], " ")}
	if user, at, ok := strings.Cut(t.d.host, "@"); ok {
		host["ansible_user"], host["ansible_host"] = user, at
	}
	here := map[string]any{"hosts": map[string]any{inventoryName: map[string]any{}}}
	text, err := json.Marshal(map[string]any{"all": map[string]any{
		"hosts":    map[string]any{inventoryName: host},
		"children": map[string]any{"docker": here, "services": here, "restic": here},
	}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "inventory.json")
	return file, os.WriteFile(file, text, 0o600)
}

// vars make the machine into the one that was backed up, as far as what is restored goes, and give it the kit and no more.
func (t *trial) vars() (map[string]any, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	tool, err := exec.LookPath(t.m.Restic)
	if err != nil {
		return nil, fmt.Errorf("find restic: %w", err)
	}
	left := []string{}
	for _, s := range t.m.catalog {
		if !slices.ContainsFunc(t.chosen, func(c catalog.Service) bool { return c.Name == s.Name }) {
			left = append(left, s.Name)
		}
	}
	kit, err := t.m.kitOf()
	if err != nil {
		return nil, err
	}
	v := map[string]any{
		"services_host": t.m.Host, "services_left_out": left, "restic_host": t.m.Host, "restic_services": "/opt/homelab/services",
		"restic_schedule": false, "restic_drills": []string{}, "restic_repositories": kit, "restic_kuma": map[string]any{}, "restic_discord_webhook": "", "restic_notes": "",
		"restic_homelab_binary": self, "restic_binary": absolute(tool), "tailnet_address": "127.0.0.1",
	}
	if sum, err := os.ReadFile(filepath.Join(filepath.Dir(t.m.path), "restic.sha256")); err == nil { // role restic wrote down what it had verified
		v["restic_sha256"] = strings.TrimSpace(string(sum))
	}
	if t.m.Services != "" {
		v["services_source"], v["restic_services_source"] = absolute(t.m.Services), absolute(t.m.Services)
	}
	if t.d.inventory == "" && t.d.varsIn == "" {
		v["services_environment"] = map[string]string{"TAILNET_ADDRESS": "127.0.0.1"}
	}
	if t.m.proxy != "" {
		v["docker_proxy"] = t.m.proxy
	}
	if t.d.images != "" {
		images, err := imagesIn(strings.Split(t.d.images, ","))
		if err != nil {
			return nil, err
		}
		v["docker_images"] = images
	}
	return v, nil
}

// absolute makes a path mean the same in the playbooks' folder.
func absolute(p string) string {
	if a, err := filepath.Abs(p); err == nil {
		return a
	}
	return p
}

// kitOf is what a machine that may only read needs of each repository, with the secrets themselves: role restic writes them down.
func (m *machine) kitOf() (map[string]any, error) {
	kit := map[string]any{}
	for tier, repo := range m.Repositories {
		key, ok := repo.Keys["restore"]
		if !ok {
			continue
		}
		password, err := site.Secret("file:" + repo.Password)
		if err != nil {
			return nil, err
		}
		lines, err := key.Environ()
		if err != nil {
			return nil, err
		}
		env := map[string]string{}
		for _, line := range append(lines, m.way()...) {
			name, value, _ := strings.Cut(line, "=")
			env[name] = value
		}
		kit[tier] = map[string]any{"url": repo.URL, "password": password, "price": repo.Price, "keys": map[string]any{"restore": map[string]any{"env": env}}}
	}
	if len(kit) == 0 {
		return nil, errors.New("read the kit: this machine has no restore key: add repositories.fast.keys.restore")
	}
	return kit, nil
}

// imagesIn reads which images archives of docker save hold.
func imagesIn(files []string) (images []map[string]string, err error) {
	for _, file := range files {
		if file == "" {
			continue
		}
		tags, err := tagsIn(file)
		if err != nil {
			return nil, fmt.Errorf("read images %s: %w: make it with docker save", file, err)
		}
		for _, tag := range tags {
			images = append(images, map[string]string{"name": tag, "archive": absolute(file)})
		}
	}
	return images, nil
}

func tagsIn(file string) (tags []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil, errors.New("it has no manifest.json")
		}
		if err != nil {
			return nil, err
		}
		if h.Name != "manifest.json" {
			continue
		}
		var all []struct{ RepoTags []string }
		if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&all); err != nil {
			return nil, err
		}
		for _, one := range all {
			tags = append(tags, one.RepoTags...)
		}
		if len(tags) == 0 {
			return nil, errors.New("it holds no image that has a name")
		}
		return tags, nil
	}
}

// standDown stops what was brought to life on a machine that stays, and takes the keys away again.
func (t *trial) standDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	line := "rm -rf /etc/homelab/keys"
	for _, s := range t.chosen {
		if len(s.Compose.Containers) > 0 {
			line += "; docker compose --project-directory " + restore.Quote("/opt/homelab/services/"+s.Name) + " down --timeout 20"
		}
	}
	if _, err := t.remote.run(ctx, nil, line); err != nil {
		t.c.say("stop the services and remove the keys: " + err.Error())
	}
}
