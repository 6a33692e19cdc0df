// Package images makes container images for machines that reach no registry. An image bears the name that a compose file of the catalog asks
// for, so that it runs unchanged, and says in its label what is in it: the real program, of Debian or built from its source, or a stand-in.
// What is nowhere real: the makers' layers and entry points; each script in files says what it does in their place.
package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
)

//go:embed files
var files embed.FS

// An image is what runs under a name of a compose file.
type image struct {
	what  string            // for the label: "Debian's PostgreSQL 17", "a stand-in"
	entry []string          // what runs; the compose file's command is put behind it
	env   []string          // besides PATH
	home  string            // the working directory; "": /
	trees map[string]string // files and folders of this machine, by where they go
	bare  bool              // there is nothing below it, as in the image that our pipeline builds
}

func debian(what string, entry ...string) image {
	return image{what: what, entry: append([]string{"tini", "--"}, entry...)}
}

// Programs are what was built before: by make, and by the rooms' setup.sh. Only those that an archive needs have to be there.
type Programs struct {
	Runner  string // llm-runner
	Standin string // test/online/standin
	Gitea   string // a folder with gitea, options, public and templates; "": a stand-in answers, since it takes five minutes to build
	Ollama  string
}

func (p Programs) standin(name string) image {
	return image{what: "a stand-in", entry: []string{"/lab/standin", name}, trees: map[string]string{"lab/standin": p.Standin}}
}

// catalog knows each repository of the catalog's compose files, without tag and digest.
func (p Programs) catalog() map[string]image {
	gitea := debian("Gitea, built from its module", "/lab/gitea.sh")
	gitea.trees = map[string]string{"opt/gitea": p.Gitea}
	if p.Gitea == "" {
		gitea = p.standin("gitea")
	}
	ollama := debian("Ollama, built from its module", "ollama", "serve")
	ollama.trees, ollama.env = map[string]string{"usr/bin/ollama": p.Ollama}, []string{"OLLAMA_HOST=0.0.0.0:11434"}
	kuma := p.standin("uptime-kuma")
	kuma.home = "/app"
	all := map[string]image{
		"postgres":            debian("Debian's PostgreSQL 17", "/lab/postgres.sh"),
		"redis":               debian("Debian's Redis", "redis-server", "--dir", "/data", "--protected-mode", "no"),
		"prom/prometheus":     debian("Debian's Prometheus", "prometheus"),
		"syncthing/syncthing": debian("Debian's Syncthing", "/lab/syncthing.sh"),
		"gitea/gitea":         gitea,
		"ollama/ollama":       ollama,
		"registry.gitlab.com/example/homelab/llm-runner": {what: "our own llm-runner", entry: []string{"/llm-runner"}, trees: map[string]string{"llm-runner": p.Runner}, bare: true},
		"louislam/uptime-kuma":                           kuma,
		"nginxinc/nginx-unprivileged":                    {what: "nothing: role nginx installs nginx beside the containers", entry: []string{"false"}},
	}
	for repository, name := range map[string]string{"searxng/searxng": "searxng", "infisical/infisical": "infisical", "langfuse/langfuse": "langfuse", "plexinc/pms-docker": "plex",
		"portainer/portainer-ce": "portainer", "grafana/grafana": "grafana", "qdrant/qdrant": "qdrant", "cloudflare/cloudflared": "cloudflared"} {
		all[repository] = p.standin(name)
	}
	return all
}

// repository is an image's name without tag and digest.
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	return name
}

// image returns what is behind a name.
func (p Programs) image(name string) (image, error) {
	i, ok := p.catalog()[repository(name)]
	if !ok {
		return i, fmt.Errorf("nothing here stands in for the image %s: add it to test/images", name)
	}
	return i, nil
}

// Archive packs images into one file that docker load reads, in the cache, and returns it; names are as compose files write them. One that was
// packed from the same programs is taken as it is, and those that nobody has asked for in a day go. Without names there is none: "".
func Archive(ctx context.Context, p Programs, names []string, say func(string)) (string, error) {
	if len(names) == 0 {
		return "", nil
	}
	cache, err := lab.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	list := map[string]image{}
	for _, name := range names {
		if list[name], err = p.image(name); err != nil {
			return "", err
		}
	}
	sum, err := sumOf(list)
	if err != nil {
		return "", err
	}
	file, below := filepath.Join(dir, "set-"+sum+".tar"), filepath.Join(dir, "debian-"+recipeSum()+".tar")
	lock, err := lab.WaitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("wait for who makes images: %w", err)
	}
	defer lock.Close()
	if err := sweep(dir, time.Now().Add(-unused), file, below); err != nil {
		return "", fmt.Errorf("remove old images: %w", err)
	}
	if taken(file) {
		return file, nil
	}
	if !taken(below) {
		if err := layer(ctx, below, say); err != nil {
			return "", err
		}
	}
	say("packing images: " + strings.Join(names, ", "))
	if err := pack(file, below, list); err != nil {
		return "", fmt.Errorf("pack images: %w", err)
	}
	return file, nil
}

// Prepare makes the layer that all archives share, where it is not there: a minute or two that no test has to have.
func Prepare(ctx context.Context, say func(string)) error {
	cache, err := lab.Cache()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lab.WaitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return fmt.Errorf("wait for who makes images: %w", err)
	}
	defer lock.Close()
	if below := filepath.Join(dir, "debian-"+recipeSum()+".tar"); !taken(below) {
		return layer(ctx, below, say)
	}
	return nil
}

// taken tells whether a file is there, and notes that it is in use.
func taken(file string) bool {
	now := time.Now()
	return os.Chtimes(file, now, now) == nil
}

// unused is how long an archive is kept that nobody asks for.
const unused = 24 * time.Hour

// sweep removes archives that nobody has asked for since then, and what killed ones left half: whoever packs holds the lock.
func sweep(dir string, since time.Time, keep ...string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range found {
		file := filepath.Join(dir, f.Name())
		st, err := f.Info()
		half := strings.HasPrefix(f.Name(), "packing-") || strings.HasPrefix(f.Name(), "part-")
		if half || err == nil && strings.HasSuffix(file, ".tar") && st.ModTime().Before(since) && !slices.Contains(keep, file) {
			errs = append(errs, os.RemoveAll(file))
		}
	}
	return errors.Join(errs...)
}

// sumOf is the sum of all that an archive is made from: programs by their bytes, folders, which have their version in their name, by names and
// sizes.
func sumOf(list map[string]image) (string, error) {
	w := sha256.New()
	fmt.Fprintln(w, recipeSum())
	err := fs.WalkDir(files, "files", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(p)
		fmt.Fprintf(w, "%s %d %s", p, len(text), text)
		return err
	})
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		i := list[name]
		fmt.Fprintf(w, "%q %q %q %q %q %v\n", name, i.what, i.entry, i.env, i.home, i.bare)
		for _, at := range slices.Sorted(maps.Keys(i.trees)) {
			if err := sumTree(w, at, i.trees[at]); err != nil {
				return "", fmt.Errorf("read what goes into image %s: %w", name, err)
			}
		}
	}
	return fmt.Sprintf("%x", w.Sum(nil)[:8]), nil
}

func sumTree(w io.Writer, at, from string) error {
	if from == "" {
		return errors.New("nobody has said where that program is")
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if p == from {
			text, err := os.ReadFile(p)
			fmt.Fprintf(w, "%s %d ", at, len(text))
			w.Write(text) //nolint:errcheck // a hash takes everything
			return err
		}
		st, err := d.Info()
		if err == nil {
			fmt.Fprintln(w, at, p, st.Size())
		}
		return err
	})
}
