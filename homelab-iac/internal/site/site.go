// Package site is what one machine must know to back itself up and come back: where the repositories are, which keys it holds,
// and whom to tell. Secrets are in files of their own; the configuration only names them.
package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"home.arpa/lab/internal/strict"
)

// Path is where the configuration is when nobody says otherwise.
const Path = "/etc/homelab/homelab.yaml"

// Config is /etc/homelab/homelab.yaml.
type Config struct {
	Host         string                `yaml:"host"`         // as the catalog calls this machine; empty: its host name
	State        string                `yaml:"state"`        // what is remembered between runs
	Dumps        string                `yaml:"dumps"`        // where dumps are written for as long as a backup takes
	Cache        string                `yaml:"cache"`        // restic's cache; it may be deleted at any time
	Restic       string                `yaml:"restic"`       // the program
	Services     string                `yaml:"services"`     // a folder of descriptions; empty: the ones built in
	Compose      []string              `yaml:"compose"`      // how Docker Compose is called for {service}
	Metrics      string                `yaml:"metrics"`      // a file for the node exporter; empty: none
	Notes        string                `yaml:"notes"`        // a folder of the vault for session notes; empty: none
	Repositories map[string]Repository `yaml:"repositories"` // by tier
	Kuma         Kuma                  `yaml:"kuma"`
	Terraform    Terraform             `yaml:"terraform"`
	Precheck     Precheck              `yaml:"precheck"`
	Discord      string                `yaml:"discord"`  // reference to the webhook's URL; empty: nobody is told
	Ntfy         Ntfy                  `yaml:"ntfy"`     // who else is told
	Runbooks     string                `yaml:"runbooks"` // what links to pages begin with; empty: docs/runbooks/ in the repository
}

// A Repository is where the snapshots of one tier are.
type Repository struct {
	URL      string         `yaml:"url"`
	Password string         `yaml:"password"` // a file
	Keys     map[string]Key `yaml:"keys"`     // backup (may only add), maintenance (may delete), restore (may only read)
	// Price is for telling what a restore costs, in dollars a gigabyte read: for Glacier Instant Retrieval about 0.03 and 0.09
	// for the way out (AWS S3 pricing; check yours).
	Price float64 `yaml:"price"`
}

// A Key is a file of NAME=value lines for restic's environment.
type Key struct {
	File    string `yaml:"file"`
	Expires string `yaml:"expires"` // 2027-01-31; empty: never
}

// Kuma is the Uptime Kuma that is pushed to.
type Kuma struct {
	URL      string `yaml:"url"`
	Secret   string `yaml:"secret"` // reference: push tokens are made from it
	User     string `yaml:"user"`   // for homelab kuma sync
	Password string `yaml:"password"`
}

// Ntfy is a topic of an ntfy server.
type Ntfy struct {
	URL   string `yaml:"url"`   // empty: https://ntfy.sh
	Topic string `yaml:"topic"` // reference; empty: nobody is told by it
	Token string `yaml:"token"` // reference; empty: none
}

// Terraform is where its state lies, and what the copies of it are sealed with.
type Terraform struct {
	State string `yaml:"state"` // https://gitlab.com/api/v4/projects/1/terraform/state/prod; empty: there is none
	User  string `yaml:"user"`
	Token string `yaml:"token"` // reference; needs no more than to read the state
	Key   string `yaml:"key"`   // reference: 32 characters or more, and in the break-glass kit
}

// Precheck is what a machine must know to sign for its own wiping.
type Precheck struct {
	Kit       string    `yaml:"kit"`   // the folder of the break-glass kit, where it is while somebody looks
	Files     int       `yaml:"files"` // how many files are compared with the backup; 0: 12
	Ways      []Way     `yaml:"ways"`  // into the machine, two at least
	Infisical Infisical `yaml:"infisical"`
}

// A Way into the machine, proved by a command that ends with 0.
type Way struct {
	What string   `yaml:"what"`
	Run  []string `yaml:"run"`
}

// Infisical is read to compare the kit's export with it (Universal Auth: a machine identity that may only read).
type Infisical struct {
	URL         string `yaml:"url"`
	Client      string `yaml:"client"` // reference
	Secret      string `yaml:"secret"` // reference
	Project     string `yaml:"project"`
	Environment string `yaml:"environment"`
}

// KeyNames are the keys that a repository can have.
var KeyNames = []string{"backup", "maintenance", "restore"}

// Default is what holds where the configuration says nothing.
func Default() Config {
	return Config{
		State: "/var/lib/homelab", Dumps: "/var/lib/homelab/dumps", Cache: "/var/cache/homelab/restic", Restic: "restic",
		Compose: []string{"docker", "compose", "--file", "/opt/homelab/services/{service}/compose.yaml"},
	}
}

// Load reads a configuration; all faults are reported at once.
func Load(path string) (Config, error) {
	c := Default()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("read configuration: %s is not there: role restic writes it; or name another with --config", path)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	lines, faults := strict.Decode(text, &c)
	if len(faults) > 0 {
		return c, fmt.Errorf("read configuration %s:\n%w", path, faults)
	}
	if delete(lines, ""); len(lines) == 0 { // a file that was cut short would watch nothing and say that all is well
		return c, fmt.Errorf("read configuration: %s is empty: role restic writes it; run site.yml --tags restic again", path)
	}
	if c.Host == "" {
		if c.Host, err = os.Hostname(); err != nil {
			return c, fmt.Errorf("read host name: %w: set host in %s", err, path)
		}
	}
	if faults := c.Validate(); len(faults) > 0 {
		return c, fmt.Errorf("read configuration %s:\n%w", path, faults)
	}
	return c, nil
}

// Validate reports everything that is wrong.
func (c Config) Validate() strict.Faults {
	var faults strict.Faults
	must := func(ok bool, key, format string, args ...any) {
		if !ok {
			faults = append(faults, strict.Fault{Key: key, Text: fmt.Sprintf(format, args...)})
		}
	}
	for key, p := range map[string]string{"state": c.State, "dumps": c.Dumps} {
		must(filepath.IsAbs(p), key, "%q is not an absolute path", p)
	}
	must(c.Terraform.State == "" || strings.HasPrefix(c.Terraform.State, "https://") || strings.HasPrefix(c.Terraform.State, "http://127.0.0.1"), "terraform.state", "%q is not an https:// address: the state holds secrets", c.Terraform.State)
	must(c.Terraform.State == "" || c.Terraform.Key != "", "terraform.key", "names the key that copies of the state are sealed with: file:PATH")
	must(c.Precheck.Kit == "" || filepath.IsAbs(c.Precheck.Kit), "precheck.kit", "%q is not an absolute path", c.Precheck.Kit)
	must(c.Precheck.Files >= 0, "precheck.files", "%d: name a number of files, or leave it out", c.Precheck.Files)
	for i, w := range c.Precheck.Ways {
		must(w.What != "" && len(w.Run) > 0, fmt.Sprintf("precheck.ways[%d]", i), "needs what and run")
	}
	must(len(c.Compose) > 0, "compose", "is empty: say how Docker Compose is called")
	for tier, r := range c.Repositories {
		key := "repositories." + tier
		must(tier == "fast" || tier == "slow", key, "there are fast and slow")
		must(r.URL != "", key+".url", "says where the repository is: s3:https://HOST/BUCKET/restic")
		must(filepath.IsAbs(r.Password), key+".password", "%q is not an absolute path: name the file with the password", r.Password)
		for name, k := range r.Keys {
			must(name == "backup" || name == "maintenance" || name == "restore", key+".keys."+name, "there are backup, maintenance and restore")
			must(filepath.IsAbs(k.File), key+".keys."+name+".file", "%q is not an absolute path", k.File)
			_, err := k.Expiry()
			must(err == nil, key+".keys."+name+".expires", "%q is not a date: write 2027-01-31", k.Expires)
		}
	}
	return faults
}

// Expiry is when the key ends; zero means never.
func (k Key) Expiry() (time.Time, error) {
	if k.Expires == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.DateOnly, k.Expires)
}

// Environ reads the key's file: NAME=value a line, # before a comment.
func (k Key) Environ() ([]string, error) {
	text, err := os.ReadFile(k.File)
	if err != nil {
		return nil, fmt.Errorf("read key: %w: it comes from the break-glass kit or from role restic", err)
	}
	var env []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("read key %s: a line is not NAME=value", k.File)
		}
		env = append(env, name+"="+strings.Trim(value, `"'`))
	}
	return env, nil
}

// Secret follows a reference: env:NAME or file:PATH. An empty one is an empty secret.
func Secret(reference string) (string, error) {
	kind, rest, _ := strings.Cut(reference, ":")
	switch {
	case reference == "":
		return "", nil
	case kind == "env":
		v, ok := os.LookupEnv(rest)
		if !ok {
			return "", fmt.Errorf("read secret: %s is not in the environment", rest)
		}
		return v, nil
	case kind == "file":
		text, err := os.ReadFile(rest)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return "", errors.New("read secret: write env:NAME or file:PATH, never the secret itself")
}
