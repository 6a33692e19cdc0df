package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/restore"
	"home.arpa/lab/homelab-iac/internal/site"
)

// A remote is the machine on which the restore is proved.
type remote struct {
	c    *call
	argv []string // ssh ... host
	dir  string   // for the kit; empty where the playbook brought it
	// measured is the folder there with what came back, by service.
	measured string
}

// run runs a command line there. Its output is returned; what it says on stderr goes to ours.
func (r *remote) run(ctx context.Context, in io.Reader, line string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 12*time.Hour)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.argv[0], append(r.argv[1:len(r.argv):len(r.argv)], line)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, r.c.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("run on %s: %.80s: %w", r.argv[len(r.argv)-1], line, err)
	}
	return out.Bytes(), nil
}

func (r *remote) homelab(args ...string) string {
	if r.dir == "" { // site.yml put it where it belongs
		return restore.Line(append([]string{"/usr/local/bin/homelab"}, args...))
	}
	return restore.Line(append([]string{r.dir + "/homelab"}, append(args, "--config", r.dir+"/homelab.yaml")...))
}

func (r *remote) put(ctx context.Context, name string, mode string, text io.Reader) error {
	p := restore.Quote(r.dir + "/" + name)
	_, err := r.run(ctx, text, "umask 077 && cat > "+p+" && chmod "+mode+" "+p)
	return err
}

// refuse refuses a machine that is one of those that were backed up.
func (r *remote) refuse(ctx context.Context, chosen []catalog.Service) error {
	name, err := r.run(ctx, nil, "hostname")
	if err != nil {
		return err
	}
	for _, s := range chosen {
		if strings.TrimSpace(string(name)) == s.Host {
			return fmt.Errorf("it calls itself %s, like the machine that was backed up: a drill puts old data in the place of what stands there; give the clean machine another host name", s.Host)
		}
	}
	return nil
}

// bring brings the kit: program, restic, addresses, passwords, and of the keys only those that may read.
func (r *remote) bring(ctx context.Context, m *machine) error {
	if _, err := r.run(ctx, nil, "umask 077 && mkdir -p "+r.dir+"/services"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	tool, err := exec.LookPath(m.Restic)
	if err != nil {
		return fmt.Errorf("find restic: %w", err)
	}
	for name, file := range map[string]string{"homelab": self, "restic": tool} {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = r.put(ctx, name, "0700", f)
		f.Close()
		if err != nil {
			return err
		}
	}
	config, secrets, err := m.kit(r.dir)
	if err != nil {
		return err
	}
	for name, text := range secrets {
		if err := r.put(ctx, name, "0600", strings.NewReader(text)); err != nil {
			return err
		}
	}
	if m.Services != "" {
		tar := exec.CommandContext(ctx, "tar", "-C", m.Services, "-cf", "-", ".")
		text, err := tar.Output()
		if err != nil {
			return fmt.Errorf("pack the catalog: %w", err)
		}
		if _, err := r.run(ctx, bytes.NewReader(text), "tar -C "+r.dir+"/services -xf -"); err != nil {
			return err
		}
	}
	return r.put(ctx, "homelab.yaml", "0600", bytes.NewReader(config))
}

// kit is the configuration of a machine that may only read, and the secrets that it names.
func (m *machine) kit(dir string) (config []byte, secrets map[string]string, err error) {
	k := site.Config{Host: m.Host, State: dir + "/state", Dumps: m.Dumps, Cache: dir + "/cache", Restic: dir + "/restic", Compose: m.Compose, Repositories: map[string]site.Repository{}}
	if m.Services != "" {
		k.Services = dir + "/services"
	}
	secrets = map[string]string{}
	for tier, repo := range m.Repositories {
		key, ok := repo.Keys["restore"]
		if !ok {
			continue
		}
		for name, file := range map[string]string{tier + ".password": repo.Password, tier + ".env": key.File} {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, nil, fmt.Errorf("read the kit: %w", err)
			}
			secrets[name] = string(text)
		}
		secrets[tier+".env"] += "\n" + strings.Join(m.way(), "\n")
		k.Repositories[tier] = site.Repository{URL: repo.URL, Password: dir + "/" + tier + ".password", Keys: map[string]site.Key{"restore": {File: dir + "/" + tier + ".env"}}, Price: repo.Price}
	}
	config, err = yaml.Marshal(k)
	return config, secrets, err
}

// restore runs the restore there and takes its report over, also that of one that failed.
func (r *remote) restore(ctx context.Context, w wanted, report *drill.Report) error {
	args := []string{"restore", "run", "--yes", "--json", "--tags", w.tags, "--measure", r.measured}
	if w.tier != "" {
		args = append(args, "--tier", w.tier)
	}
	if w.asOf != "" {
		args = append(args, "--as-of", w.asOf)
	}
	out, err := r.run(ctx, nil, r.homelab(args...))
	var done restore.Report
	if json.Unmarshal(out, &done) != nil {
		return err
	}
	report.Services = done.Services
	return err
}

// prove runs the checks that change data there, and puts how they went into the report.
func (r *remote) prove(ctx context.Context, w wanted, report *drill.Report) error {
	out, err := r.run(ctx, nil, r.homelab("restore", "prove", "--drill", "--json", "--tags", w.tags))
	var done restore.Report
	if json.Unmarshal(out, &done) != nil {
		return err
	}
	report.Proofs = done.Services
	return nil // what did not hold is in the report
}

// measurement fetches what came back.
func (r *remote) measurement(ctx context.Context, chosen []catalog.Service) (drill.Measurement, error) {
	there := drill.Measurement{}
	for _, s := range chosen {
		if len(s.Backup.Paths) == 0 {
			continue
		}
		out, err := r.run(ctx, nil, "cat "+restore.Quote(r.measured+"/"+s.Name+".json"))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(out, &there); err != nil { // each names other paths
			return nil, fmt.Errorf("read the measurement of %s: %w", s.Name, err)
		}
	}
	return there, nil
}

// forget removes the kit: its secrets have no business on a machine that is thrown away by somebody else.
func (r *remote) forget(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := r.run(ctx, nil, "rm -rf "+r.dir); err != nil {
		r.c.say("remove the kit: " + err.Error())
	}
}
