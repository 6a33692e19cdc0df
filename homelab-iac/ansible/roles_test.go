// Package ansible holds no code, only the playbooks and what must be true of them.
package ansible

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/services"
)

var update = flag.Bool("update", false, "write the roles' README.md anew")

// A spec is a role's meta/argument_specs.yml.
type spec struct {
	Short       string   `yaml:"short_description"`
	Description []string `yaml:"description"`
	Options     map[string]struct {
		Description any    `yaml:"description"`
		Type        string `yaml:"type"`
		Elements    string `yaml:"elements"`
		Required    bool   `yaml:"required"`
		Default     any    `yaml:"default"`
		Options     map[string]struct {
			Description string `yaml:"description"`
		} `yaml:"options"`
	} `yaml:"options"`
}

func roles(t *testing.T) map[string]spec {
	t.Helper()
	found := map[string]spec{}
	folders, err := os.ReadDir("roles")
	if err != nil || len(folders) == 0 {
		t.Fatal("no roles", err)
	}
	for _, f := range folders {
		var specs struct {
			All struct{ Main spec } `yaml:"argument_specs"`
		}
		read(t, filepath.Join("roles", f.Name(), "meta/argument_specs.yml"), &specs)
		found[f.Name()] = specs.All.Main
	}
	return found
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(file, err)
	}
}

func TestVariablesAreDeclaredAndCalledAfterTheirRole(t *testing.T) {
	used := regexp.MustCompile(`\b([a-z0-9]+)_[a-z0-9_]+`)
	all := roles(t)
	for role, s := range all {
		var defaults map[string]any
		read(t, filepath.Join("roles", role, "defaults/main.yml"), &defaults)
		for name := range defaults {
			if _, declared := s.Options[name]; !declared {
				t.Errorf("%s: %s has a default and no place in meta/argument_specs.yml", role, name)
			}
		}
		for name, o := range s.Options {
			if !strings.HasPrefix(name, role+"_") {
				t.Errorf("%s: the variable %s must begin with %s_", role, name, role)
			}
			if _, has := defaults[name]; has == o.Required {
				t.Errorf("%s: %s must be required or have a default, and not both", role, name)
			}
			if !mentioned(t, role, name) {
				t.Errorf("%s: nothing uses %s", role, name)
			}
		}
		// A role's files speak of their own variables; the playbook and the inventory wire roles together.
		for _, file := range files(t, role) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range used.FindAllStringSubmatch(string(text), -1) {
				if _, theirs := all[m[1]].Options[m[0]]; theirs && m[1] != role {
					t.Errorf("%s uses %s, a variable of %s", file, m[0], m[1])
				}
			}
		}
	}
}

func files(t *testing.T, role string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"tasks/*", "templates/*", "handlers/*", "vars/*", "defaults/*"} {
		found, err := filepath.Glob(filepath.Join("roles", role, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func mentioned(t *testing.T, role, name string) bool {
	t.Helper()
	return slices.ContainsFunc(files(t, role), func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && !strings.Contains(file, "/defaults/") && bytes.Contains(text, []byte(name))
	})
}

func TestReadmesSayWhatTheSpecsSay(t *testing.T) {
	for role, s := range roles(t) {
		file := filepath.Join("roles", role, "README.md")
		want := readme(role, s)
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s is stale: go test ./homelab-iac/ansible -update", file)
		}
	}
}

// readme is a role's page, made from its specification.
func readme(role string, s spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Made from meta/argument_specs.yml; change it there, then: go test ./homelab-iac/ansible -update -->\n# %s\n\n%s.\n\n%s\n", role, s.Short, strings.Join(s.Description, "\n\n"))
	b.WriteString("\n| Variable | Type | If nothing is said | What it is |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		o := s.Options[name]
		kind := o.Type
		if o.Elements != "" {
			kind += " of " + o.Elements
		}
		fallback := fmt.Sprintf("`%v`", o.Default)
		switch {
		case o.Required:
			fallback = "it is required"
		case o.Default == nil || o.Default == "":
			fallback = "empty"
		}
		text := fmt.Sprint(o.Description)
		for _, inner := range slices.Sorted(maps.Keys(o.Options)) {
			text += fmt.Sprintf(" `%s`: %s", inner, o.Options[inner].Description)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, kind, fallback, strings.ReplaceAll(strings.TrimSpace(text), "|", `\|`))
	}
	return b.String()
}

// TestTheInventoriesFitThePlaybookAndTheCatalog: every group that site.yml speaks of is in each inventory, and every machine of the
// catalog in the example.
func TestTheInventoriesFitThePlaybookAndTheCatalog(t *testing.T) {
	type play struct {
		Hosts  string `yaml:"hosts"`
		Import string `yaml:"ansible.builtin.import_playbook"`
	}
	var plays []play
	read(t, "site.yml", &plays)
	for _, p := range plays {
		if p.Import != "" {
			var more []play
			read(t, p.Import, &more)
			plays = append(plays, more...)
		}
	}
	for _, name := range []string{"example", "lab"} {
		var inventory struct {
			All struct {
				Hosts    map[string]any `yaml:"hosts"`
				Children map[string]struct {
					Hosts map[string]any `yaml:"hosts"`
				} `yaml:"children"`
			} `yaml:"all"`
		}
		read(t, filepath.Join("inventory", name, "hosts.yml"), &inventory)
		for _, p := range plays {
			if _, ok := inventory.All.Children[p.Hosts]; !ok && p.Hosts != "all" && p.Import == "" {
				t.Errorf("inventory %s has no group %s", name, p.Hosts)
			}
		}
		for group, g := range inventory.All.Children {
			for host := range g.Hosts {
				if _, ok := inventory.All.Hosts[host]; !ok {
					t.Errorf("inventory %s: %s is in group %s and not among the hosts", name, host, group)
				}
			}
		}
		if name != "example" {
			continue
		}
		all, err := catalog.Load(services.FS)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if _, ok := inventory.All.Hosts[s.Host]; !ok {
				t.Errorf("service %s is on %s, which is not in the inventory", s.Name, s.Host)
			}
			if _, backed := inventory.All.Children["restic"].Hosts[s.Host]; !backed && s.Nothing == "" {
				t.Errorf("service %s is to be backed up, and %s is not in group restic", s.Name, s.Host)
			}
		}
	}
}

// TestPagesNameTheFilesThatRoleResticWrites: a path below /etc/homelab on a page is one that a role writes, or the first lines of a restore by hand fail.
func TestPagesNameTheFilesThatRoleResticWrites(t *testing.T) {
	template, err := os.ReadFile("roles/restic/templates/homelab.yaml.j2")
	if err != nil {
		t.Fatal(err)
	}
	all, err := catalog.Load(services.FS)
	if err != nil {
		t.Fatal(err)
	}
	known := []string{`/etc/homelab`, `/etc/homelab/homelab\.yaml`}
	for _, s := range all {
		known = append(known, "/etc/homelab/"+s.Name+`\.env`)
	}
	for _, path := range regexp.MustCompile(`/etc/homelab/keys/(?:[\w.-]|{{ \w+ }})+`).FindAllString(string(template), -1) {
		path = strings.NewReplacer(".", `\.`, "{{ tier }}", "(fast|slow)", "{{ role }}", "(backup|maintenance|restore)").Replace(path)
		known = append(known, path)
	}
	if len(known) < 12+len(all) {
		t.Fatalf("the template names only %q", known)
	}
	one := regexp.MustCompile("^(" + strings.Join(known, "|") + ")$")
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no runbooks", err)
	}
	for _, page := range append(pages, "../../docs/restore.md", "../../docs/break-glass.md", "../../docs/homelab/precheck.md", "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range regexp.MustCompile(`/etc/homelab[\w./-]*`).FindAllString(string(text), -1) {
			if path = strings.TrimRight(path, "./"); !one.MatchString(path) {
				t.Errorf("%s names %s, which no role writes", page, path)
			}
		}
	}
}
