package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/test/circle"
	"home.arpa/lab/homelab-iac/test/lab"
)

// drillLab proves a restore of this household on a machine of a lab, which reaches the storage and nothing else.
func (c *call) drillLab(ctx context.Context, d drillCall) error {
	m, err := c.drilled(&d)
	if err != nil {
		return err
	}
	chosen, _, err := d.services(m)
	if err != nil {
		return err
	}
	reach, err := storages(m)
	if err != nil {
		return err
	}
	for host := range strings.SplitSeq(d.reach, ",") {
		if host = strings.TrimSpace(host); host != "" {
			if !strings.Contains(host, ":") {
				host += ":443"
			}
			reach = append(reach, host)
		}
	}
	if d.playbooks == "" {
		d.playbooks = findPlaybooks()
	}
	if d.playbooks == "" && slices.ContainsFunc(chosen, func(s catalog.Service) bool { return len(s.Compose.Containers) > 0 }) {
		return usageError{"these services need a machine made by site.yml: name the folder homelab-iac/ansible of a checkout with --playbooks"}
	}
	l, err := lab.Open(ctx, lab.Options{Reach: reach, Log: c.say})
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the next lab removes what is left
	m.proxy = l.Way()
	return c.drillOn(ctx, m, d, l)
}

// drillOn makes a clean machine in a lab and proves the restore on it.
func (c *call) drillOn(ctx context.Context, m *machine, d drillCall, l *lab.Lab) error {
	d.host, d.ssh = inventoryName, "ssh -F "+l.SSHConfig()
	err := c.drill(ctx, m, d, func(ctx context.Context) error {
		_, err := l.Add(ctx, inventoryName)
		return err
	})
	c.stay(ctx, d, l, inventoryName)
	return err
}

// stay waits for Ctrl-C where the machine is to be kept.
func (c *call) stay(ctx context.Context, d drillCall, l *lab.Lab, machine string) {
	if d.keep && l.Machine(machine) != nil {
		c.say("The machine stays until Ctrl-C: ssh -F " + l.SSHConfig() + " " + machine)
		<-ctx.Done()
	}
}

// storages are the addresses of the repositories, for the lab's way out.
func storages(m *machine) ([]string, error) {
	var out []string
	for tier, r := range m.Repositories {
		at, err := storage(r.URL)
		if err != nil {
			return nil, usageError{fmt.Sprintf("the %s repository %s: %v", tier, r.URL, err)}
		}
		out = append(out, at)
	}
	return out, nil
}

// storage is the host and port of a repository's address, "s3:https://HOST/BUCKET/restic" or "rest:https://HOST:8000/". Pure.
func storage(repository string) (string, error) {
	kind, rest, _ := strings.Cut(repository, ":")
	if kind != "s3" && kind != "rest" {
		return "", fmt.Errorf("a machine of the lab reaches repositories of the kinds s3 and rest only; prove this one with --host")
	}
	if !strings.Contains(rest, "://") {
		rest = "https://" + rest
	}
	u, err := url.Parse(rest)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("it names no host")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return "", fmt.Errorf("%s is another machine in the lab: name it by an address of this one", u.Hostname())
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// findPlaybooks looks where a checkout has them: beside this program in bin, and in the present folder. "" where it is in neither.
func findPlaybooks() string {
	places := []string{"homelab-iac/ansible"}
	if self, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(self), "..", "homelab-iac/ansible"))
	}
	for _, p := range places {
		if _, err := os.Stat(filepath.Join(p, "site.yml")); err == nil {
			return p
		}
	}
	return ""
}

// sampleFiles is how many notes a sample has: as many as a vault of some years.
const sampleFiles = 10_000

// drillSample goes the whole way with data of its own: a machine, its data, a backup, a fire, and a drill.
func (c *call) drillSample(ctx context.Context, d drillCall) error {
	if d.tags == "" {
		d.tags = "vault,photos"
	}
	if d.playbooks == "" {
		d.playbooks = findPlaybooks()
	}
	if d.playbooks == "" {
		return usageError{"a sample needs the playbooks: name the folder homelab-iac/ansible of a checkout with --playbooks"}
	}
	o, err := c.sample(ctx, d)
	if err != nil {
		return err
	}
	c.say("sample: a lab with a storage and one machine")
	h, err := circle.Open(ctx, o)
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // the next lab removes what is left
	for _, s := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"make the machine: site.yml", func(ctx context.Context) error { _, err := h.Converge(ctx); return err }},
		{"fill it", h.Fill},
		{"back it up", func(ctx context.Context) error { return h.Backup(ctx, "fast") }},
		{"throw it away", func(context.Context) error { return h.Destroy() }},
	} {
		c.say("sample: " + s.what)
		began := time.Now()
		if err := s.do(ctx); err != nil {
			c.stay(ctx, d, h.Lab, circle.Source)
			return fmt.Errorf("%s: %w", s.what, err)
		}
		c.say(fmt.Sprintf("sample: %s: done in %.1f s", s.what, time.Since(began).Seconds()))
	}
	if d.out == "" {
		d.out = "restore-proof"
	}
	if c.config, err = h.Config(filepath.Join(h.Dir, "state"), site.Kuma{}); err != nil {
		return err
	}
	m, err := c.machine()
	if err != nil {
		return err
	}
	d.tags, d.images, d.varsIn, d.reference = "all", h.Images, h.Vars, h.Reference
	return c.drillOn(ctx, m, d, h.Lab)
}

// sample finds the programs that the sample's services need.
func (c *call) sample(ctx context.Context, d drillCall) (circle.Options, error) {
	o := circle.Options{Playbooks: d.playbooks, Files: sampleFiles, Say: c.say, Out: c.stderr}
	for tag := range strings.SplitSeq(d.tags, ",") {
		if tag == "all" {
			o.Services = circle.Services
		} else if tag = strings.TrimSpace(tag); tag != "" {
			if !slices.Contains(circle.Services, tag) {
				return o, usageError{fmt.Sprintf("--tags %s: there is no sample of %q; there are all, %s", d.tags, tag, strings.Join(circle.Services, ", "))}
			}
			o.Services = append(o.Services, tag)
		}
	}
	var err error
	if o.Homelab, err = os.Executable(); err != nil {
		return o, err
	}
	if o.Restic, err = lab.Tool("restic"); err != nil {
		return o, err
	}
	if slices.Contains(o.Services, "llm-runner") {
		o.Runner = filepath.Join(filepath.Dir(o.Homelab), "llm-runner")
		if _, err := os.Stat(o.Runner); err != nil {
			return o, fmt.Errorf("find llm-runner: %w: make build", err)
		}
	}
	if slices.Contains(o.Services, "gitea") {
		setup := filepath.Join(d.playbooks, "..", "test", "tools", "gitea", "setup.sh")
		cmd := exec.CommandContext(ctx, setup)
		cmd.Stderr = c.stderr
		out, err := cmd.Output()
		if err != nil {
			return o, fmt.Errorf("build Gitea with %s: %w", setup, err)
		}
		o.Gitea = strings.TrimSpace(string(out))
	}
	return o, nil
}
