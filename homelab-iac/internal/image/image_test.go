package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const dockerfile = `# an image
FROM scratch
ARG TARGETARCH
ARG REVISION=unknown
COPY --chmod=0755 app-${TARGETARCH} /bin/app
COPY --chmod=1777 tmp/ /tmp/
COPY --chown=1000:1000 data /data
USER 1000:1000
ENV HOME=/data
LABEL org.opencontainers.image.revision="$REVISION"
EXPOSE 8080
ENTRYPOINT ["/bin/app"]
CMD ["serve"]
`

func context() fstest.MapFS {
	return fstest.MapFS{
		"app-amd64": {Data: []byte("amd"), Mode: 0o600}, "app-arm64": {Data: []byte("arm"), Mode: 0o777},
		"tmp": {Mode: os.ModeDir | 0o700}, "data/x/y.txt": {Data: []byte("y"), Mode: 0o640},
	}
}

func both(t *testing.T) []Platform {
	t.Helper()
	p, err := ParsePlatforms("linux/amd64, linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheSameFilesMakeTheSameImage(t *testing.T) {
	made := time.Unix(1_700_000_000, 999)
	one, err := Build(dockerfile, context(), both(t), map[string]string{"REVISION": "abc"}, made)
	if err != nil {
		t.Fatal(err)
	}
	other := context()
	other["app-amd64"].Mode, other["app-amd64"].ModTime = 0o644, time.Now() // modes and times of the checkout do not matter
	two, err := Build(dockerfile, other, both(t), map[string]string{"REVISION": "abc"}, made)
	if err != nil || one.Index.Digest != two.Index.Digest {
		t.Errorf("%s and %s: %v", one.Index.Digest, two.Index.Digest, err)
	}
	other["app-amd64"].Data = []byte("amd2")
	if three, err := Build(dockerfile, other, both(t), map[string]string{"REVISION": "abc"}, made); err != nil || three.Index.Digest == one.Index.Digest {
		t.Error("another program is the same image", err)
	}
}

func TestTheImageIsWhatTheDockerfileSays(t *testing.T) {
	img, err := Build(dockerfile, context(), both(t), nil, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal(img.Index.Data, &index); err != nil || len(index.Manifests) != 2 || index.Manifests[1].Platform.Architecture != "arm64" {
		t.Fatalf("%s %v", img.Index.Data, err)
	}
	by := map[string]Blob{}
	for _, b := range append(append([]Blob{}, img.Blobs...), img.Manifests...) {
		by[b.Digest] = b
	}
	var manifest struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(by[index.Manifests[1].Digest].Data, &manifest); err != nil {
		t.Fatal(err)
	}
	config := string(by[manifest.Config.Digest].Data)
	for _, want := range []string{`"User":"1000:1000"`, `"Entrypoint":["/bin/app"]`, `"Cmd":["serve"]`, `"8080/tcp":{}`, `"HOME=/data"`, `"org.opencontainers.image.revision":"unknown"`, `"architecture":"arm64"`, `2023-11-14T22:13:20Z`} {
		if !strings.Contains(config, want) {
			t.Errorf("%s is not in %s", want, config)
		}
	}
	var list []string
	for _, l := range manifest.Layers {
		z, err := gzip.NewReader(bytes.NewReader(by[l.Digest].Data))
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(z); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(r)
			list = append(list, strings.Join([]string{h.Name, h.FileInfo().Mode().String(), string(rune('0' + h.Uid/1000)), string(text)}, " "))
		}
	}
	want := "bin/ drwxr-xr-x 0 |bin/app -rwxr-xr-x 0 arm|tmp/ dtrwxrwxrwx 0 |data/ drwxr-xr-x 1 |data/x/ drwxr-xr-x 1 |data/x/y.txt -rw-r--r-- 1 y"
	if got := strings.Join(list, "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	dir := t.TempDir()
	if err := img.Write(dir); err != nil {
		t.Fatal(err)
	}
	top, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil || !bytes.Contains(top, []byte(img.Index.Digest)) {
		t.Errorf("%s %v", top, err)
	}
}

func TestWhatAnImageFromScratchHasNoNeedOfIsRefused(t *testing.T) {
	head := "FROM scratch\nCOPY a /a\nENTRYPOINT [\"/a\"]\n"
	for name, text := range map[string]string{
		"a base":                "FROM debian:13\nCOPY a /a\nENTRYPOINT [\"/a\"]",
		"a command":             head + "RUN make",
		"two stages":            head + "FROM scratch",
		"an unknown variable":   head + "COPY app-$ARCH /x",
		"a name as owner":       head + "COPY --chown=root a /x",
		"a way out":             head + "COPY ../secret /x",
		"a relative target":     head + "COPY a x",
		"another flag":          head + "COPY --from=build a /x",
		"a shell's entrypoint":  "FROM scratch\nCOPY a /a\nENTRYPOINT /a",
		"nothing to start":      "FROM scratch\nCOPY a /a",
		"something before FROM": "COPY a /a",
		"a mode that is none":   head + "COPY --chmod=99 a /x",
		"an ENV without value":  head + "ENV A",
	} {
		if _, err := ReadDockerfile(text, nil); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := Build(head, fstest.MapFS{}, []Platform{{"linux", "amd64"}}, nil, time.Time{}); err == nil || !strings.Contains(err.Error(), "not in the context") {
		t.Error(err)
	}
}

func TestTheListOfAProgramIsReadFromTheProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	one, err := SBOM(self, "v1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := SBOM(self, "v1")
	if err != nil || !bytes.Equal(one, two) {
		t.Error("it is not the same twice", err)
	}
	var bom struct {
		BomFormat, SpecVersion, SerialNumber string
		Components                           []struct{ Name, PURL string }
	}
	if err := json.Unmarshal(one, &bom); err != nil || bom.BomFormat != "CycloneDX" || len(bom.SerialNumber) != len("urn:uuid:")+36 || !strings.Contains(string(one), "pkg:golang/stdlib@1.") {
		t.Errorf("%s %v", one, err)
	}
	if _, err := SBOM("image_test.go", ""); err == nil {
		t.Error("a text is a program")
	}
}

func FuzzDockerfile(f *testing.F) {
	f.Add(dockerfile)
	f.Add("FROM scratch\nCOPY $ /\\\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadDockerfile(text, map[string]string{"TARGETARCH": "amd64"})
		if err == nil && (len(r.Copies) == 0 || len(r.Entrypoint) == 0) {
			t.Error("it makes no image")
		}
	})
}
