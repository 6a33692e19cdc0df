// Package online proves that the services come up clean and private: real machines of the lab, the real playbooks and compose files, and
// images made here (test/images), since no registry can be reached.
package online

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/secrets"
	"home.arpa/lab/homelab-iac/services"
	"home.arpa/lab/homelab-iac/test/images"
	"home.arpa/lab/homelab-iac/test/infisical"
	"home.arpa/lab/homelab-iac/test/lab"
)

// A Stage is one named step from an empty lab to serving machines. Each can be run again at any time.
type Stage struct {
	Name string
	What string
	run  func(*zero, context.Context) error
}

// Stages are the way from nothing, in order. Before the first, the lab's machines answer over SSH and have nothing.
var Stages = []Stage{
	{"images", "what runs, as images: Debian's programs, our own, stand-ins", (*zero).images},
	{"base", "packages, SSH, a firewall that lets nobody in", tags("base")},
	{"docker", "Docker, and the images on it", tags("docker")},
	{"tailnet", "each machine in the tailnet, with a key of its own", tags("tailscale")},
	{"metrics", "each machine's numbers, for Prometheus", tags("metrics")},
	{"nginx", "nginx before the pages, with TLS", tags("nginx")},
	{"services", "the folders of services/, up and healthy", tags("services")},
	{"backup", "restic, homelab and their units", tags("restic")},
	{"gate", "web search answers over the tailnet", tags("gate")},
}

type zero struct {
	play  *Play
	state lab.State
	dir   string // of the lab: what is here goes with it
	say   func(string)
}

// ImagesFile is where the stage images leaves what role docker reads.
func ImagesFile(s lab.State) string { return filepath.Join(s.Dir, "images.json") }

func tags(tag string) func(*zero, context.Context) error {
	return func(z *zero, ctx context.Context) error {
		_, err := z.play.Run(ctx, "site.yml", "--tags", tag)
		return err
	}
}

// Zero runs the stages that this lab has not had, tells of each, and returns how long each took. What was done is written down in the lab's own
// folder after each stage, so a run that was killed is gone on with by the next, and a new lab begins anew. A stage that was killed is run again.
func Zero(ctx context.Context, root, stateFile string, again bool, say func(string)) error {
	s, err := ReadState(stateFile)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "zero.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	play, err := NewPlay(ctx, root, stateFile, log, "HOMELAB_LAB_IMAGES="+ImagesFile(s), "HOMELAB_BIN="+filepath.Join(root, "bin/homelab"))
	if err != nil {
		return err
	}
	z := &zero{play: play, state: s, dir: s.Dir, say: say}
	took, err := readTook(s.Dir)
	if err != nil || again {
		took = map[string]float64{}
	}
	for _, stage := range Stages {
		if _, done := took[stage.Name]; done {
			say(fmt.Sprintf("%-9s done before", stage.Name))
			continue
		}
		say(fmt.Sprintf("%-9s %s ...", stage.Name, stage.What))
		began := time.Now()
		if err := stage.run(z, ctx); err != nil {
			return fmt.Errorf("stage %s: %w: %s says more; the same command goes on from here", stage.Name, err, log.Name())
		}
		took[stage.Name] = time.Since(began).Seconds()
		if err := writeTook(s.Dir, took); err != nil {
			return err
		}
	}
	total := 0.0
	for _, stage := range Stages {
		say(fmt.Sprintf("%-9s %6.1f s", stage.Name, took[stage.Name]))
		total += took[stage.Name]
	}
	say(fmt.Sprintf("%-9s %6.1f s", "together", total))
	return nil
}

func readTook(dir string) (took map[string]float64, err error) {
	took = map[string]float64{}
	text, err := os.ReadFile(filepath.Join(dir, "zero.json"))
	if errors.Is(err, os.ErrNotExist) {
		return took, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &took)
	}
	return took, err
}

func writeTook(dir string, took map[string]float64) error {
	text, err := json.MarshalIndent(took, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "zero.json"), text)
}

// writeFile writes a file in one step: a kill leaves the old one or the new one.
func writeFile(file string, text []byte) error {
	if err := os.WriteFile(file+".part", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}

// images packs what each machine's services need, and says so where role docker reads it.
func (z *zero) images(ctx context.Context) error {
	p, err := built(ctx, z.play.Root, z.dir)
	if err != nil {
		return err
	}
	needs, err := Needs()
	if err != nil {
		return err
	}
	type entry struct {
		Name    string `json:"name"`
		Archive string `json:"archive"`
	}
	list := map[string][]entry{}
	for _, host := range slices.Sorted(maps.Keys(needs)) {
		file, err := images.Archive(ctx, p, needs[host], z.say)
		if err != nil {
			return err
		}
		for _, name := range needs[host] {
			list[host] = append(list[host], entry{name, file})
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return writeFile(ImagesFile(z.state), text)
}

// Needs lists the images that each machine runs, sorted, as the catalog's compose files name them. nginx is installed without one.
func Needs() (map[string][]string, error) {
	all, err := catalog.Load(services.FS)
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for _, s := range all {
		for _, c := range s.Compose.Containers {
			if s.Name != "nginx" && !slices.Contains(needs[s.Host], c.Image) {
				needs[s.Host] = append(needs[s.Host], c.Image)
			}
		}
	}
	for _, list := range needs {
		slices.Sort(list)
	}
	return needs, nil
}

// built finds the programs that go into images, and builds the stand-in.
func built(ctx context.Context, root, dir string) (images.Programs, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return images.Programs{}, err
	}
	p := images.Programs{Runner: filepath.Join(root, "bin/llm-runner"), Standin: filepath.Join(dir, "standin")}
	if _, err := os.Stat(p.Runner); err != nil {
		return p, fmt.Errorf("find llm-runner: %w: make build", err)
	}
	newest := func(pattern, cure string) (string, error) {
		found, _ := filepath.Glob(filepath.Join(cache, pattern))
		if len(found) == 0 {
			return "", fmt.Errorf("find %s in %s: nothing: run %s", pattern, cache, cure)
		}
		return found[len(found)-1], nil
	}
	var errs [2]error
	p.Ollama, errs[0] = newest("llm-runner/ollama-*/ollama", "llm-runner/test/setup.sh")
	if found, _ := filepath.Glob(filepath.Join(cache, "homelab/gitea-*/gitea")); len(found) > 0 {
		p.Gitea = filepath.Dir(found[len(found)-1])
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p.Standin, "./homelab-iac/test/online/standin")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		errs[1] = fmt.Errorf("build the stand-in: %w: %s", err, out)
	}
	return p, errors.Join(errs[:]...)
}

// Secrets returns an imitation of Infisical with random values for all that the catalog's services need.
func Secrets() (*infisical.Server, error) {
	all, err := catalog.Load(services.FS)
	if err != nil {
		return nil, err
	}
	server := infisical.New()
	for _, name := range []string{"LLM_RUNNER_PASSWORD", "LLM_RUNNER_TOKEN"} { // its runner.yaml asks for them, not its compose file
		server.Set("/llm-runner", name, rand.Text())
	}
	for _, s := range all {
		needs, err := secrets.Needs(services.FS, s.Name)
		if err != nil {
			return nil, err
		}
		for _, name := range needs {
			if name != "TAILNET_ADDRESS" {
				server.Set("/"+s.Name, name, rand.Text())
			}
		}
	}
	return server, nil
}
