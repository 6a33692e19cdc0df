// Command dockerlike is a stand-in for Docker in tests of deployments, where no Docker engine runs. It knows pull, tag, inspect and Compose's
// up and ps for one container, pulls from a real registry protocol, checks every digest, and runs the image's entrypoint as a plain process:
// there is no isolation whatsoever. DOCKERLIKE_DIR is where it keeps things; DOCKERLIKE_ARGS are the arguments of what it starts;
// DOCKERLIKE_IMAGE is the name that the compose file would have.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var dir = os.Getenv("DOCKERLIKE_DIR")

func main() {
	out, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "dockerlike:", err)
		os.Exit(1)
	}
	fmt.Println(out)
}

func run(args []string) (string, error) {
	if len(args) == 0 || dir == "" {
		return "", errors.New("a command and DOCKERLIKE_DIR are needed")
	}
	last := args[len(args)-1]
	switch {
	case args[0] == "pull":
		return last, pull(last)
	case args[0] == "tag":
		id, err := read(args[1])
		if err != nil {
			return "", err
		}
		return "", write(args[2], id)
	case args[0] == "image" && args[1] == "inspect":
		return read(last)
	case args[0] == "inspect":
		return lookup("container.image")
	case args[0] == "compose" && slices.Contains(args, "up"):
		return "", up()
	case args[0] == "compose" && slices.Contains(args, "ps"):
		pid, err := lookup("container.pid")
		if n, bad := strconv.Atoi(pid); err != nil || bad != nil || !alive(n) {
			return "", nil //nolint:nilerr // nothing runs
		}
		return pid, nil
	}
	return "", fmt.Errorf("%q is not known", args)
}

func slot(name string) string { return filepath.Join(dir, "tags", hex.EncodeToString([]byte(name))) }

// read is the number of an image by name, digest or number.
func read(name string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "images", strings.TrimPrefix(name, "sha256:"))); strings.HasPrefix(name, "sha256:") && err == nil {
		return name, nil
	}
	text, err := os.ReadFile(slot(name))
	if err != nil {
		return "", fmt.Errorf("no such image: %s", name)
	}
	return string(text), nil
}

func write(name, id string) error {
	if err := os.MkdirAll(filepath.Dir(slot(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(slot(name), []byte(id), 0o644)
}

func lookup(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	return string(text), err
}

type manifest struct {
	Config    struct{ Digest string }
	Layers    []struct{ Digest string }
	Manifests []struct {
		Digest   string
		Platform struct{ OS, Architecture string }
	}
}

func pull(reference string) error {
	name, digest, ok := strings.Cut(reference, "@")
	host, repository, ok2 := strings.Cut(name, "/")
	if !ok || !ok2 {
		return fmt.Errorf("%s has no digest", reference)
	}
	base := "http://" + host + "/v2/" + repository
	var m manifest
	for {
		text, err := fetch(base+"/manifests/"+digest, digest)
		if err != nil {
			return err
		}
		m = manifest{}
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if len(m.Manifests) == 0 {
			break
		}
		i := slices.IndexFunc(m.Manifests, func(x struct {
			Digest   string
			Platform struct{ OS, Architecture string }
		}) bool {
			return x.Platform.OS == runtime.GOOS && x.Platform.Architecture == runtime.GOARCH
		})
		if i < 0 {
			return errors.New("no image for this platform")
		}
		digest = m.Manifests[i].Digest
	}
	root := filepath.Join(dir, "images", strings.TrimPrefix(m.Config.Digest, "sha256:"))
	for _, l := range m.Layers {
		text, err := fetch(base+"/blobs/"+l.Digest, l.Digest)
		if err != nil {
			return err
		}
		if err := unpack(root, text); err != nil {
			return err
		}
	}
	config, err := fetch(base+"/blobs/"+m.Config.Digest, m.Config.Digest)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, ".config.json"), config, 0o644); err != nil {
		return err
	}
	return write(reference, m.Config.Digest)
}

func fetch(address, digest string) ([]byte, error) {
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %w", address, resp.Status, err)
	}
	if sum := sha256.Sum256(text); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%s has another digest", address)
	}
	return text, nil
}

func unpack(root string, layer []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := filepath.Join(root, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(at, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
			var text []byte
			if text, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(at, text, os.FileMode(h.Mode)) //nolint:gosec // as the image says
			}
		}
		if err != nil {
			return err
		}
	}
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// up stops what runs and starts what the tag names, as Compose does when an image has changed.
func up() error {
	id, err := read(os.Getenv("DOCKERLIKE_IMAGE"))
	if err != nil {
		return err
	}
	if text, err := lookup("container.pid"); err == nil {
		if pid, err := strconv.Atoi(text); err == nil && alive(pid) {
			if now, _ := lookup("container.image"); now == id {
				return nil
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return err
			}
			for i := 0; alive(pid); i++ {
				if i == 200 {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						return err
					}
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	root := filepath.Join(dir, "images", strings.TrimPrefix(id, "sha256:"))
	text, err := os.ReadFile(filepath.Join(root, ".config.json"))
	if err != nil {
		return err
	}
	var config struct {
		Config struct{ Entrypoint []string } `json:"config"`
	}
	if err := json.Unmarshal(text, &config); err != nil || len(config.Config.Entrypoint) == 0 {
		return fmt.Errorf("the image has no entrypoint: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "container.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(root, config.Config.Entrypoint[0]), strings.Fields(os.Getenv("DOCKERLIKE_ARGS"))...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "container.image"), []byte(id), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "container.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}
