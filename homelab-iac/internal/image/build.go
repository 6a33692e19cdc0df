package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// The media types of the OCI image specification 1.1.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A Blob is a piece of an image.
type Blob struct {
	Type   string
	Digest string
	Data   []byte
}

func blob(kind string, data []byte) Blob {
	sum := sha256.Sum256(data)
	return Blob{kind, "sha256:" + hex.EncodeToString(sum[:]), data}
}

// A Platform is one of those that an image is for.
type Platform struct{ OS, Arch string }

// ParsePlatforms reads "linux/amd64,linux/arm64".
func ParsePlatforms(text string) (all []Platform, err error) {
	for p := range strings.SplitSeq(text, ",") {
		system, arch, ok := strings.Cut(strings.TrimSpace(p), "/")
		if !ok || system == "" || arch == "" || strings.Contains(arch, "/") {
			return nil, fmt.Errorf("read platforms: %q is not like linux/arm64", p)
		}
		all = append(all, Platform{system, arch})
	}
	return all, nil
}

// An Image is for one platform or more. Blobs are in the order in which a registry takes them, Manifests after them, Index last.
type Image struct {
	Blobs     []Blob
	Manifests []Blob
	Index     Blob
}

type descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int               `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

func describe(b Blob) descriptor {
	return descriptor{MediaType: b.Type, Digest: b.Digest, Size: len(b.Data)}
}

// Build makes an image of a Dockerfile and the files of a context. args are the values of its ARGs beside TARGETOS and TARGETARCH; made is
// the time that all files and the image itself have.
func Build(dockerfile string, context fs.FS, platforms []Platform, args map[string]string, made time.Time) (Image, error) {
	var img Image
	made = made.UTC().Truncate(time.Second)
	seen := map[string]bool{}
	add := func(b Blob) descriptor {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			img.Blobs = append(img.Blobs, b)
		}
		return describe(b)
	}
	index := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: typeIndex}
	for _, p := range platforms {
		all := map[string]string{"TARGETOS": p.OS, "TARGETARCH": p.Arch, "TARGETPLATFORM": p.OS + "/" + p.Arch}
		for k, v := range args {
			all[k] = v
		}
		recipe, err := ReadDockerfile(dockerfile, all)
		if err != nil {
			return img, err
		}
		var layers []descriptor
		var diffs []string
		for _, c := range recipe.Copies {
			packed, diff, err := layer(context, c, made)
			if err != nil {
				return img, err
			}
			layers = append(layers, add(packed))
			diffs = append(diffs, diff)
		}
		config, err := json.Marshal(recipe.config(p, diffs, made))
		if err != nil {
			return img, err
		}
		manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": add(blob(typeConfig, config)), "layers": layers})
		if err != nil {
			return img, err
		}
		m := blob(typeManifest, manifest)
		img.Manifests = append(img.Manifests, m)
		d := describe(m)
		d.Platform = map[string]string{"os": p.OS, "architecture": p.Arch}
		index.Manifests = append(index.Manifests, d)
	}
	text, err := json.Marshal(index)
	if err != nil {
		return img, err
	}
	img.Index = blob(typeIndex, text)
	return img, nil
}

// config is the image's configuration; maps are written in the order of their keys.
func (r Recipe) config(p Platform, diffs []string, made time.Time) map[string]any {
	inner := map[string]any{"Entrypoint": r.Entrypoint}
	if len(r.Cmd) > 0 {
		inner["Cmd"] = r.Cmd
	}
	if r.User != "" {
		inner["User"] = r.User
	}
	if r.WorkDir != "" {
		inner["WorkingDir"] = r.WorkDir
	}
	if len(r.Env) > 0 {
		inner["Env"] = r.Env
	}
	if len(r.Labels) > 0 {
		inner["Labels"] = r.Labels
	}
	if len(r.Ports) > 0 {
		ports := map[string]any{}
		for _, port := range r.Ports {
			ports[port] = struct{}{}
		}
		inner["ExposedPorts"] = ports
	}
	history := make([]map[string]any, 0, len(r.Copies))
	for _, c := range r.Copies {
		history = append(history, map[string]any{"created": made.Format(time.RFC3339), "created_by": "COPY " + c.From + " " + c.To})
	}
	return map[string]any{"architecture": p.Arch, "os": p.OS, "created": made.Format(time.RFC3339), "config": inner,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs}, "history": history}
}

// layer is the layer that one COPY makes, and the digest of what is in it before it is packed.
func layer(context fs.FS, c Copy, made time.Time) (Blob, string, error) {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	target := strings.TrimPrefix(path.Clean(c.To), "/")
	from := path.Clean(c.From)
	info, err := fs.Stat(context, from)
	if err != nil {
		return Blob{}, "", fmt.Errorf("copy %s: it is not in the context: %w", c.From, err)
	}
	if !info.IsDir() && strings.HasSuffix(c.To, "/") {
		target = path.Join(target, path.Base(from))
	}
	put := func(name string, mode int64, uid, gid int, dir bool, data []byte) error {
		h := &tar.Header{Name: name, Mode: mode, Uid: uid, Gid: gid, ModTime: made, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Size: int64(len(data))}
		if dir {
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	parts := strings.Split(path.Dir(target), "/")
	for i := range parts { // folders above it, root's
		if at := path.Join(parts[:i+1]...); at != "." {
			if err := put(at, 0o755, 0, 0, true, nil); err != nil {
				return Blob{}, "", err
			}
		}
	}
	mode := func(info fs.FileInfo) int64 {
		switch {
		case c.Mode >= 0:
			return c.Mode
		case info.IsDir() || info.Mode()&0o111 != 0:
			return 0o755
		}
		return 0o644
	}
	var names []string
	if err := fs.WalkDir(context, from, func(p string, _ fs.DirEntry, err error) error { names = append(names, p); return err }); err != nil {
		return Blob{}, "", err
	}
	sort.Strings(names)
	for _, p := range names {
		info, err := fs.Stat(context, p)
		if err != nil {
			return Blob{}, "", err
		}
		name := path.Join(target, strings.TrimPrefix(strings.TrimPrefix(p, from), "/"))
		var data []byte
		switch {
		case info.IsDir():
		case info.Mode().IsRegular():
			if data, err = fs.ReadFile(context, p); err != nil {
				return Blob{}, "", err
			}
		default:
			return Blob{}, "", fmt.Errorf("copy %s: it is no file and no folder", p)
		}
		if err := put(name, mode(info), c.UID, c.GID, info.IsDir(), data); err != nil {
			return Blob{}, "", err
		}
	}
	if err := w.Close(); err != nil {
		return Blob{}, "", err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed+4)
	if err != nil {
		return Blob{}, "", err
	}
	if _, err := z.Write(raw.Bytes()); err != nil {
		return Blob{}, "", err
	}
	if err := z.Close(); err != nil {
		return Blob{}, "", err
	}
	return blob(typeLayer, packed.Bytes()), blob("", raw.Bytes()).Digest, nil
}

// Write writes the image as an OCI layout, which other tools read (skopeo copy oci:DIR).
func (img Image) Write(dir string) error {
	at := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	all := append(append(append([]Blob{}, img.Blobs...), img.Manifests...), img.Index)
	for _, b := range all {
		if err := os.WriteFile(filepath.Join(at, strings.TrimPrefix(b.Digest, "sha256:")), b.Data, 0o644); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
	}
	top, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{describe(img.Index)}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), top, 0o644)
}
