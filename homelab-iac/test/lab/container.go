package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
)

// WriteImage writes a container image with BusyBox and nothing else as an archive that `docker load` reads, for services
// of the lab: it reaches no registry. The same program gives the same bytes.
func WriteImage(file, tag string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("write image %s: %w: apt-get install busybox-static", tag, err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("write image %s: %w", tag, err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"bin/", "tmp/", "www/", "etc/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := addFile(w, "bin/busybox", 0o755, program); err != nil {
		return err
	}
	for _, name := range []string{"sh", "httpd", "wget", "true", "cat", "ls"} {
		if err := w.WriteHeader(&tar.Header{Name: path.Join("bin", name), Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	// The format is the one of `docker save`: a manifest, a configuration called by its sum, and layers.
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{"Config": configName, "RepoTags": []string{tag}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var image bytes.Buffer
	w = tar.NewWriter(&image)
	for _, f := range []struct {
		name string
		b    []byte
	}{{configName, config}, {"layer.tar", layer.Bytes()}, {"manifest.json", manifest}} {
		if err := addFile(w, f.name, 0o644, f.b); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, image.Bytes(), 0o600)
}

func addFile(w *tar.Writer, name string, mode int64, b []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}
