// Package circle goes the whole way in a lab: a machine is made from nothing by the playbooks, filled, backed up to S3 and thrown away.
// What is left is what a fire leaves: the storage, and the kit. `homelab drill --lab --sample` goes on from there, and so do the proofs.
package circle

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/homelab-iac/internal/ansible"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/services"
	"home.arpa/lab/homelab-iac/test/images"
	"home.arpa/lab/homelab-iac/test/lab"
)

//go:embed fill.py
var scripts embed.FS

// Host is as which machine of the catalog the sample is backed up; Source is what that machine is called in the lab.
const (
	Host   = "prod-services"
	Source = "home"
)

// Services are those that the lab can run for real, in the order in which they are restored.
var Services = []string{"vault", "gitea", "llm-runner", "photos"}

// Password opens the sample's repository and databases. It protects nothing: both go with the lab.
const Password = "correct horse battery staple"

// Options say what a circle needs.
type Options struct {
	Services  []string // some of Services
	Playbooks string   // the folder homelab-iac/ansible
	Homelab   string   // programs
	Restic    string
	Runner    string    // llm-runner, where it is one of the services
	Gitea     string    // the folder that test/tools/gitea/setup.sh made, where it is one of the services
	Files     int       // how many notes; photos are a fiftieth of that
	Extra     int64     // bytes of more photos, to make the restore as large as one likes
	Out       io.Writer // what Ansible says; nil: nobody hears it
	Say       func(string)
}

// A Circle is a lab with a household in it.
type Circle struct {
	Options
	Lab       *lab.Lab
	Dir       string   // of files for the drill
	Catalog   string   // the folder of descriptions: those of the catalog, all on one machine
	Vars      string   // a file with variables for the playbooks, the services' secrets among them
	Images    string   // an archive of docker save
	Reference string   // the measurement of what was backed up
	names     []string // what is in it
	plays     ansible.Runner
}

// Open starts the lab with its storage and one clean machine. Close throws everything away.
func Open(ctx context.Context, o Options) (c *Circle, err error) {
	c = &Circle{Options: o}
	for _, s := range o.Services {
		if !slices.Contains(Services, s) {
			return nil, fmt.Errorf("make a sample: there is none of %q; there are %s", s, strings.Join(Services, ", "))
		}
	}
	if c.plays, err = ansible.Open(ctx, o.Playbooks, o.Out); err != nil {
		return nil, err
	}
	if c.names, err = c.wanted(); err != nil {
		return nil, err
	}
	if c.Images, err = images.Archive(ctx, images.Programs{Runner: o.Runner, Gitea: o.Gitea}, c.names, o.Say); err != nil {
		return nil, err
	}
	if c.Lab, err = lab.Open(ctx, lab.Options{Machines: []string{Source}, Storage: true, Log: o.Say}); err != nil {
		return nil, err
	}
	c.Dir = filepath.Join(c.Lab.Dir(), "circle") // it goes with the lab, also when this is killed
	err = os.Mkdir(c.Dir, 0o700)
	if err == nil {
		err = errors.Join(c.catalog(), c.vars())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close throws the lab and the files away.
func (c *Circle) Close() error { return c.Lab.Close() }

// wanted are the images that the chosen services run, as their compose files name them.
func (c *Circle) wanted() (names []string, err error) {
	all, err := catalog.Load(services.FS)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if !slices.Contains(c.Options.Services, s.Name) {
			continue
		}
		for _, container := range s.Compose.Containers {
			if !slices.Contains(names, container.Image) {
				names = append(names, container.Image)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

var hostLine = regexp.MustCompile(`(?m)^host: .*$`)

// catalog copies the descriptions of the chosen services. They are the catalog's own; only the machine is one for all.
func (c *Circle) catalog() error {
	c.Catalog = filepath.Join(c.Dir, "services")
	for _, s := range c.Options.Services {
		err := fs.WalkDir(services.FS, s, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := services.FS.ReadFile(p)
			if err != nil {
				return err
			}
			if filepath.Base(p) == "service.yaml" {
				text = hostLine.ReplaceAll(text, []byte("host: "+Host))
			}
			to := filepath.Join(c.Catalog, p)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, text, 0o644)
		})
		if err != nil {
			return fmt.Errorf("copy the catalog: %w", err)
		}
	}
	return nil
}

// Token lets programs into the sample's llm-runner.
const Token = "a-token-of-the-lab-0123456789"

// vars writes what the operator's inventory would say.
func (c *Circle) vars() error {
	c.Vars = filepath.Join(c.Dir, "vars.json")
	text, err := json.Marshal(map[string]any{
		"services_environment": map[string]string{"TAILNET_ADDRESS": "127.0.0.1"},
		"services_secrets":     map[string]any{"gitea": map[string]string{"GITEA_DB_PASSWORD": Password}, "llm-runner": map[string]string{"LLM_RUNNER_TOKEN": Token, "LLM_RUNNER_PASSWORD": Password}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(c.Vars, text, 0o600)
}

// inventory holds one machine of the lab.
func (c *Circle) inventory(name string) (string, error) {
	here := map[string]any{"hosts": map[string]any{name: map[string]any{}}}
	text, err := json.Marshal(map[string]any{"all": map[string]any{
		"hosts":    map[string]any{name: map[string]any{"ansible_user": "root", "ansible_ssh_common_args": "-F " + c.Lab.SSHConfig()}},
		"children": map[string]any{"docker": here, "services": here, "restic": here},
	}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.Dir, "inventory-"+name+".json")
	return file, os.WriteFile(file, text, 0o600)
}

// Converge runs site.yml on the source, with the key that backs up and the one that restores.
func (c *Circle) Converge(ctx context.Context, args ...string) (ansible.Recap, error) {
	inventory, err := c.inventory(Source)
	if err != nil {
		return ansible.Recap{}, err
	}
	store := c.Lab.Store()
	key := func(k lab.Key) map[string]any {
		return map[string]any{"env": map[string]string{"AWS_ACCESS_KEY_ID": k.ID, "AWS_SECRET_ACCESS_KEY": k.Secret}}
	}
	repository := func(bucket string) map[string]any {
		return map[string]any{"url": store.Repository(bucket, "restic"), "password": Password,
			"keys": map[string]any{"backup": key(store.Backup), "restore": key(store.Restore)}}
	}
	archives := []any{}
	for _, name := range c.names {
		archives = append(archives, map[string]string{"name": name, "archive": c.Images})
	}
	return c.plays.Run(ctx, ansible.Run{Playbook: "site.yml", Host: Source, Inventories: []string{inventory}, VarFiles: []string{c.Vars}, Args: args,
		Vars: map[string]any{
			"services_host": Host, "services_source": c.Catalog, "docker_images": archives,
			"restic_host": Host, "restic_services": "/opt/homelab/services", "restic_services_source": c.Catalog, "restic_schedule": false,
			"restic_repositories":   map[string]any{"fast": repository("fast"), "slow": repository("slow")},
			"restic_homelab_binary": c.Homelab, "restic_binary": c.Restic,
		}})
}

// Fill puts data into every service: odd files, repositories with their issues, a conversation.
func (c *Circle) Fill(ctx context.Context) error {
	program, err := scripts.ReadFile("fill.py")
	if err != nil {
		return err
	}
	want, err := json.Marshal(map[string]any{"services": c.Options.Services, "files": c.Files, "extra": c.Extra, "token": Token})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	_, err = c.Lab.Machine(Source).Run(ctx, "cat >/root/fill.py <<'END'\n"+string(program)+"\nEND\npython3 /root/fill.py '"+string(want)+"'")
	return err
}

// Backup makes a snapshot of every service, and measures what went into it.
func (c *Circle) Backup(ctx context.Context, tier string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	m := c.Lab.Machine(Source)
	if _, err := m.Run(ctx, "/usr/local/bin/homelab backup run "+tier+" --reference /root/reference.json >&2"); err != nil {
		return err
	}
	text, err := m.Run(ctx, "cat /root/reference.json")
	if err != nil {
		return err
	}
	c.Reference = filepath.Join(c.Dir, "reference.json")
	return os.WriteFile(c.Reference, []byte(text), 0o600)
}

// Destroy throws the source away.
func (c *Circle) Destroy() error { return c.Lab.Machine(Source).Remove() }

// Config writes homelab.yaml for who goes on with nothing but the kit: addresses, passwords, the keys that may only read.
func (c *Circle) Config(state string, kuma site.Kuma) (string, error) {
	store := c.Lab.Store()
	for name, text := range map[string]string{
		"kit.password": Password + "\n",
		"kit.env":      strings.Join(store.Restore.Env(), "\n") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	config := site.Default()
	config.Host, config.State, config.Services, config.Restic, config.Kuma = Host, state, c.Catalog, c.Restic, kuma
	config.Cache = filepath.Join(c.Dir, "cache")
	config.Compose = []string{"docker", "compose", "--project-directory", "/opt/homelab/services/{service}"} // as role restic writes it
	config.Repositories = map[string]site.Repository{}
	for _, tier := range []string{"fast", "slow"} {
		config.Repositories[tier] = site.Repository{URL: store.Repository(tier, "restic"), Password: filepath.Join(c.Dir, "kit.password"),
			Keys: map[string]site.Key{"restore": {File: filepath.Join(c.Dir, "kit.env")}}}
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.Dir, "homelab.yaml")
	return file, os.WriteFile(file, text, 0o600)
}
