package catalog

import (
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"home.arpa/lab/homelab-iac/services"
)

func TestOurCatalogIsWhole(t *testing.T) {
	all, err := Load(services.FS)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	orders := map[int]string{}
	for _, s := range all {
		names = append(names, s.Name)
		if other := orders[s.Restore.Order]; other != "" && s.Nothing == "" {
			t.Errorf("%s and %s are both restored as number %d: nobody knows which comes first", other, s.Name, s.Restore.Order)
		}
		if s.Nothing == "" {
			orders[s.Restore.Order] = s.Name
		}
		if _, err := fs.Stat(services.FS, s.Name+"/README.md"); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(names)
	want := []string{"cloudflared", "gitea", "grafana", "infisical", "langfuse", "llm-runner", "nginx", "ollama", "photos", "plex", "portainer", "prometheus", "qdrant", "searxng", "terraform-state", "uptime-kuma", "vault", "vault-copy"}
	if !slices.Equal(names, want) {
		t.Errorf("services %v", names)
	}
}

// TestImagesWithoutDigestAreListed keeps the gap visible: a digest comes from a registry (homelab pin asks for it) and is
// never made up. Whoever pins an image takes it off the list.
func TestImagesWithoutDigestAreListed(t *testing.T) {
	all, err := Load(services.FS)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, s := range all {
		for _, k := range s.Compose.Containers {
			if _, _, digest := SplitImage(k.Image); digest == "" {
				missing[k.Image] = true
			}
		}
	}
	text, err := os.ReadFile("../../services/unpinned.txt")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			listed = append(listed, line)
		}
	}
	if got := slices.Sorted(maps.Keys(missing)); !slices.Equal(got, listed) {
		t.Errorf("without a digest are\n%s\nand unpinned.txt lists\n%s", strings.Join(got, "\n"), strings.Join(listed, "\n"))
	}
}

const compose = `services:
  web:
    image: example/web:1.2
    volumes: ["/srv/x/data:/data"]
    ports:
      - "127.0.0.1:80:80" # nginx
    healthcheck: {test: [CMD, "true"]}
    mem_limit: 1g
    cpus: 1.0
`

const service = `about: An example.
host: here
backup:
  rpo: {fast: 26h}
  stop: [web]
  paths:
    - {path: /srv/x/data, uid: 1, gid: 1, mode: "0750"}
restore:
  order: 1
  rto: 1h
  tags: [y]
  holds: [{what: it is there, path: /srv/x/data}]
`

func example(service, compose string) fstest.MapFS {
	return fstest.MapFS{"x/service.yaml": {Data: []byte(service)}, "x/compose.yaml": {Data: []byte(compose)}}
}

func TestLoad(t *testing.T) {
	all, err := Load(example(service, compose))
	if err != nil || len(all) != 1 {
		t.Fatal(err)
	}
	s := all[0]
	if !s.In("fast") || s.In("slow") || !s.HasTag("x") || !s.HasTag("y") || !s.HasTag("all") || s.HasTag("dbs") || s.Backup.RPO["fast"].Hours() != 26 {
		t.Errorf("%+v", s)
	}
	if len(On(all, "here", "fast")) != 1 || len(On(all, "", "fast")) != 1 || len(On(all, "there", "fast")) != 0 || len(On(all, "here", "slow")) != 0 {
		t.Error("On picks the wrong services")
	}
}

func TestForgottenThingsAreFaults(t *testing.T) {
	for name, c := range map[string]struct{ in, old, new, want string }{
		"a volume in no contract":        {"c", "/srv/x/data:/data", "/srv/x/other:/data", "volume /srv/x/other: is in no contract"},
		"a sibling is not below":         {"c", "/srv/x/data:/data", "/srv/x/data2:/data", "is in no contract"},
		"a named volume":                 {"c", "/srv/x/data:/data", "stuff:/data", "is a named volume"},
		"an anonymous volume":            {"c", `["/srv/x/data:/data"]`, `["/data"]`, "without a source"},
		"a long volume":                  {"c", `["/srv/x/data:/data"]`, `[{type: bind, source: /srv/x/data, target: /data}]`, "write volumes as source:target"},
		"our own file, writable":         {"c", "/srv/x/data:/data", "./a:/data", "read-only"},
		"a port on every address":        {"c", "127.0.0.1:80:80", "80:80", "listens everywhere"},
		"a port on 0.0.0.0":              {"c", "127.0.0.1:80:80", "0.0.0.0:80:80", "listens everywhere"},
		"a port without a reason":        {"c", " # nginx", "", "has no comment"},
		"no healthcheck":                 {"c", "    healthcheck: {test: [CMD, \"true\"]}\n", "", "has no healthcheck"},
		"no limits":                      {"c", "    cpus: 1.0\n", "", "has no limits"},
		"no version":                     {"c", "web:1.2", "web", "names no version"},
		"latest":                         {"c", "web:1.2", "web:latest", "names no version"},
		"half a digest":                  {"c", "web:1.2", "web:1.2@sha256:12", "is not a digest"},
		"no containers":                  {"c", compose, "services: {}\n", "has no services"},
		"an unknown key":                 {"s", "restore:", "resotre:", `did you mean "restore"?`},
		"no host":                        {"s", "host: here\n", "", "name the machine"},
		"nothing to back up and a path":  {"s", "host: here", "host: here\nnothing: really", "remove one"},
		"neither backup nor reason":      {"s", "backup:", "left_out: []\nbackup_: ", "unknown key"},
		"no tier":                        {"s", "{fast: 26h}", "{}", "name a tier"},
		"an unknown tier":                {"s", "fast: 26h", "hourly: 2h", "there are fast and slow"},
		"an RPO that always alarms":      {"s", "fast: 26h", "fast: 24h", "every day would alarm"},
		"a relative path":                {"s", "path: /srv/x/data, uid", "path: srv/x/data, uid", "not an absolute"},
		"the root":                       {"s", "path: /srv/x/data, uid", "path: /, uid", "not an absolute"},
		"a mode that is not octal":       {"s", `"0750"`, `"0790"`, "is not a mode"},
		"a container that is not there":  {"s", "stop: [web]", "stop: [wbe]", `no container "wbe"`},
		"no RTO":                         {"s", "  rto: 1h\n", "", "how long a restore may take"},
		"nothing must hold":              {"s", "  holds: [{what: it is there, path: /srv/x/data}]\n", "", "what must be true"},
		"a hold that says nothing":       {"s", ", path: /srv/x/data}]", "}]", "one of path, http and run"},
		"a hold that says two things":    {"s", ", path: /srv/x/data}]", ", path: /a, http: b}]", "one of path, http and run"},
		"a dump of an unknown kind":      {"s", "  stop:", "  dumps: [{name: a, kind: mysql}]\n  stop:", "there are postgres, command and fact"},
		"a dump without a version":       {"s", "  stop:", "  dumps: [{name: a, kind: postgres, user: u}]\n  stop:", "major"},
		"a dump that cannot be put back": {"s", "  stop:", "  dumps: [{name: a, kind: command, run: [b]}]\n  stop:", "no backup"},
		"a dump outside its folder":      {"s", "  stop:", "  dumps: [{name: ../a, kind: command, run: [b], back: [c]}]\n  stop:", "not a file name"},
		"a fact that is put back":        {"s", "  stop:", "  dumps: [{name: a, kind: fact, run: [b], back: [c]}]\n  stop:", "nothing is put back"},
		"a fact that says nothing":       {"s", "  stop:", "  dumps: [{name: a, kind: fact}]\n  stop:", "what must be the same"},
		"a drill that does nothing":      {"s", "  rto: 1h\n", "  rto: 1h\n  drill: [{what: a push}]\n", "needs what and run"},
		"a seed outside the backup":      {"s", "backup:", "seed: [{file: a, path: /b/a, mode: \"0640\"}]\nbackup:", "would be lost"},
		"a seed from elsewhere":          {"s", "backup:", "seed: [{file: ../a, path: /srv/x/data/a, mode: \"0640\"}]\nbackup:", "no file of the service"},
		"a place left out, with owners":  {"s", "backup:", "left_out: [{path: /a, reason: b, uid: 7}]\nbackup:", "give the mode"},
		"something left without reason":  {"s", "backup:", "left_out: [{path: /a}]\nbackup:", "say why"},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := service, compose
			if c.in == "c" {
				k = strings.Replace(k, c.old, c.new, 1)
			} else {
				s = strings.Replace(s, c.old, c.new, 1)
			}
			if s == service && k == compose {
				t.Fatalf("%q is not in the example", c.old)
			}
			_, err := Load(example(s, k))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSplitImage(t *testing.T) {
	for image, want := range map[string][3]string{
		"a/b:1":                   {"a/b", "1", ""},
		"host:5000/a/b":           {"host:5000/a/b", "", ""},
		"host:5000/a/b:1@sha256:": {"host:5000/a/b", "1", "sha256:"},
	} {
		name, tag, digest := SplitImage(image)
		if got := [3]string{name, tag, digest}; got != want {
			t.Errorf("%s: %v", image, got)
		}
	}
}
