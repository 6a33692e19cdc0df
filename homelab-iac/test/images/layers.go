package images

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"home.arpa/lab/homelab-iac/test/lab"
)

// packages is what the layer of Debian holds, lean what nobody reads in a container and dpkg leaves out, and hooks what is done then.
const packages = "postgresql-17,redis-server,prometheus,syncthing,git,curl,wget,ca-certificates,tini"

var (
	lean = []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/prometheus/*",
		"/usr/lib/*/libLLVM*", "/usr/lib/*/libz3*", "/usr/lib/postgresql/17/lib/llvmjit*", "/usr/lib/postgresql/17/lib/bitcode/*"}
	hooks = []string{
		"chroot $1 useradd --uid 1000 --home-dir /data/git --shell /bin/sh git", // as in the image gitea
		"mkdir -p $1/app/extra $1/prometheus && ln -s /lab/healthcheck.sh $1/app/extra/healthcheck",
		"rm -rf $1/var/cache/apt/* $1/var/lib/postgresql/17 $1/etc/postgresql/17 $1/etc/prometheus/prometheus.yml"}
)

// needless is what no container reads, and apart what only the containers of one image read: machines that do not run it do not get it, since
// every file of it costs a machine time.
var (
	needless = []string{"usr/bin/promtool", "usr/share/javascript", "usr/share/nodejs", "usr/share/i18n", "usr/share/perl", "usr/lib/x86_64-linux-gnu/perl", "usr/bin/perl",
		"usr/lib/x86_64-linux-gnu/libperl", "usr/lib/x86_64-linux-gnu/libapt", "usr/share/gitweb", "var/lib/dpkg", "var/lib/apt", "var/cache", "usr/lib/python3"}
	apart = map[string][]string{
		"prom/prometheus":     {"usr/bin/prometheus"},
		"syncthing/syncthing": {"usr/bin/syncthing"},
		"postgres":            {"usr/lib/postgresql", "usr/share/postgresql", "usr/lib/x86_64-linux-gnu/libicu"},
		"gitea/gitea":         {"usr/lib/git-core", "usr/bin/git", "usr/bin/scalar", "usr/share/git-core"},
		"redis":               {"usr/bin/redis"},
	}
)

// recipeSum changes with what the layer of Debian is made of, and with how it is thinned out.
func recipeSum() string {
	sum := sha256.Sum256(fmt.Appendln(nil, packages, lean, hooks, needless, apart))
	return fmt.Sprintf("%x", sum[:6])
}

// layer makes the layer of Debian, once, in about a minute.
func layer(ctx context.Context, file string, say func(string)) error {
	say("building the layer of Debian for images, once")
	args := []string{"--format=tar"}
	for _, h := range hooks {
		args = append(args, "--customize-hook="+h)
	}
	for _, p := range lean {
		args = append(args, "--dpkgopt=path-exclude="+p)
	}
	return lab.Bootstrap(ctx, file, packages, say, args...)
}

// thinOut copies Debian's layer without what the containers of some images do not read.
func thinOut(from, to string, names []string) error {
	drop := slices.Clone(needless)
	for owner, paths := range apart {
		if !slices.ContainsFunc(names, func(name string) bool { return repository(name) == owner }) {
			drop = append(drop, paths...)
		}
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeTar(to, func(w *tar.Writer) error {
		for r := tar.NewReader(in); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(h.Name, "./")
			if slices.ContainsFunc(drop, func(p string) bool { return strings.HasPrefix(name, p) }) {
				continue
			}
			if err = w.WriteHeader(h); err == nil {
				_, err = io.Copy(w, r)
			}
			if err != nil {
				return err
			}
		}
	})
}

// writeOwn writes a layer with programs, and with our scripts where they are wanted.
func writeOwn(to string, trees map[string]string, scripts bool) error {
	return writeTar(to, func(w *tar.Writer) error {
		var names []string
		if scripts {
			var err error
			if names, err = fs.Glob(files, "files/*"); err != nil {
				return err
			}
		}
		for _, name := range names {
			text, err := files.ReadFile(name)
			if err == nil {
				err = add(w, at(path.Base(name)), 0o755, int64(len(text)), bytes.NewReader(text))
			}
			if err != nil {
				return err
			}
		}
		for _, to := range slices.Sorted(maps.Keys(trees)) {
			if err := addTree(w, to, trees[to]); err != nil {
				return err
			}
		}
		return nil
	})
}

// at is where a script goes: what compose files and people call by name lies on the PATH, and entry points in /lab.
func at(name string) string {
	if strings.HasSuffix(name, ".sh") {
		return "lab/" + name
	}
	return "usr/local/bin/" + name
}

// pack writes the format of docker save: a manifest, a configuration for each image called by its sum, and layers: Debian and one with scripts
// and programs, which all share, and for an image that stands on nothing its own.
func pack(file, below string, list map[string]image) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), "packing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names := slices.Sorted(maps.Keys(list))
	own := map[string]string{}
	layers := map[string]string{} // their sums, by their names in the archive
	var onDebian []string
	for n, name := range names {
		if i := list[name]; i.bare {
			layer := fmt.Sprintf("bare-%d.tar", n)
			if layers[layer], err = summed(filepath.Join(dir, layer), func(to string) error { return writeOwn(to, i.trees, false) }); err != nil {
				return err
			}
			continue
		}
		onDebian = append(onDebian, name)
		maps.Copy(own, list[name].trees)
	}
	if len(onDebian) > 0 {
		if layers["base.tar"], err = summed(filepath.Join(dir, "base.tar"), func(to string) error { return thinOut(below, to, onDebian) }); err != nil {
			return err
		}
		if layers["own.tar"], err = summed(filepath.Join(dir, "own.tar"), func(to string) error { return writeOwn(to, own, true) }); err != nil {
			return err
		}
	}
	part := filepath.Join(dir, "set.tar")
	err = writeTar(part, func(w *tar.Writer) error {
		var manifest []any
		for n, name := range names {
			of := []string{"base.tar", "own.tar"}
			if list[name].bare {
				of = []string{fmt.Sprintf("bare-%d.tar", n)}
			}
			config, err := list[name].config(of, layers)
			if err != nil {
				return err
			}
			called := fmt.Sprintf("%x.json", sha256.Sum256(config))
			if err := add(w, called, 0o644, int64(len(config)), bytes.NewReader(config)); err != nil {
				return err
			}
			manifest = append(manifest, map[string]any{"Config": called, "RepoTags": []string{name}, "Layers": of})
		}
		text, err := json.Marshal(manifest)
		if err == nil {
			err = add(w, "manifest.json", 0o644, int64(len(text)), bytes.NewReader(text))
		}
		for _, layer := range slices.Sorted(maps.Keys(layers)) {
			err = errors.Join(err, addFile(w, layer, 0o644, filepath.Join(dir, layer)))
		}
		return err
	})
	if err != nil {
		return err
	}
	return os.Rename(part, file)
}

// config is an image's configuration, with the sums of the layers that it stands on.
func (i image) config(of []string, layers map[string]string) ([]byte, error) {
	ids := make([]string, len(of))
	for n, layer := range of {
		ids[n] = "sha256:" + layers[layer]
	}
	return json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{
			"Env":        append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.env...),
			"Entrypoint": i.entry, "WorkingDir": i.home, "Labels": map[string]string{"lab.what": i.what}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
}

// summed has a file written and returns its sum.
func summed(file string, write func(to string) error) (string, error) {
	if err := write(file); err != nil {
		return "", err
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

func writeTar(file string, fill func(*tar.Writer) error) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	return errors.Join(fill(w), w.Close(), out.Close())
}

func add(w *tar.Writer, name string, mode, size int64, r io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(w, r)
	return err
}

func addFile(w *tar.Writer, name string, mode int64, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return add(w, name, mode, st.Size(), f)
}

// addTree adds a file or a folder, readable by all, without the times and owners that it has here.
func addTree(w *tar.Writer, to, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		name := path.Join(to, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			return w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755})
		case d.Type().IsRegular():
			st, err := d.Info()
			if err != nil {
				return err
			}
			return addFile(w, name, int64(st.Mode().Perm()|0o444), p)
		}
		return nil
	})
}
