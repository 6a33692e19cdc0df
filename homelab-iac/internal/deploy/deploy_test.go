package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/homelab-iac/internal/fake"
	"home.arpa/lab/homelab-iac/internal/image"
	"home.arpa/lab/homelab-iac/internal/registry"
)

// TestMain lets the test's own binary be the service: the image's program is a script that calls it, and the file beside the script says how
// it behaves.
func TestMain(m *testing.M) {
	at, ok := os.LookupEnv("DEPLOY_TEST_APP")
	if !ok {
		os.Exit(m.Run())
	}
	mode, err := os.ReadFile(filepath.Join(at, "mode"))
	if err != nil || string(mode) == "crashes" {
		os.Exit(1)
	}
	time.AfterFunc(2*time.Minute, func() { os.Exit(3) }) // a test that was killed leaves nothing behind
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if string(mode) == "sick" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, string(mode))
	})
	for {
		// Between two containers a connection of somebody else may have the port for a moment.
		err := http.ListenAndServe(os.Args[1], nil)
		if fmt.Fprintln(os.Stderr, err); !errors.Is(err, syscall.EADDRINUSE) {
			os.Exit(1)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A stand is a machine with a stand-in for Docker, and a fake registry.
type stand struct {
	t        *testing.T
	registry *fake.Registry
	host     string
	target   Target
	address  string
	docker   string // the stand-in's folder
}

func build(t *testing.T) *stand {
	t.Helper()
	t.Parallel()
	program := filepath.Join(t.TempDir(), "dockerlike")
	if out, err := exec.Command("go", "build", "-o", program, "home.arpa/lab/homelab-iac/test/dockerlike").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := &stand{t: t, registry: fake.NewRegistry(), address: address, docker: t.TempDir()}
	s.registry.User, s.registry.Password, s.registry.Public = "gitlab-ci-token", "registry-password", true
	server := httptest.NewServer(s.registry)
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	name := s.host + "/example/app"
	t.Cleanup(s.kill)
	call := []string{"env", "DOCKERLIKE_DIR=" + s.docker, "DOCKERLIKE_ARGS=" + address, "DOCKERLIKE_IMAGE=" + name + ":deployed", program}
	s.target = Target{Service: "app", Container: "app", Image: name + ":deployed", Docker: call, Compose: append(slices.Clone(call), "compose"),
		Health: []string{"http://" + address + "/health"}, State: t.TempDir(), Wait: 15 * time.Second, Pause: 20 * time.Millisecond, Say: func(text string) { t.Log(text) }}
	return s
}

func (s *stand) kill() {
	text, err := os.ReadFile(filepath.Join(s.docker, "container.pid"))
	if pid, bad := strconv.Atoi(string(text)); err == nil && bad == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// push makes an image whose service behaves like that, and returns its name with the digest.
func (s *stand) push(mode string) string {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	script := "#!/bin/sh\nDEPLOY_TEST_APP=$(dirname \"$0\") exec '" + self + "' \"$@\"\n"
	context := fstest.MapFS{"app": {Data: []byte(script)}, "mode": {Data: []byte(mode)}}
	platforms, err := image.ParsePlatforms("linux/amd64,linux/arm64")
	if err != nil {
		s.t.Fatal(err)
	}
	img, err := image.Build("FROM scratch\nCOPY --chmod=0755 app /app\nCOPY mode /mode\nENTRYPOINT [\"/app\"]\n", context, platforms, nil, time.Unix(1, 0))
	if err != nil {
		s.t.Fatal(err)
	}
	to := registry.Client{Scheme: "http", User: "gitlab-ci-token", Password: "registry-password"}.Open(s.host + "/example/app")
	ctx := bounded(s.t)
	for _, b := range img.Blobs {
		if err := to.Blob(ctx, registry.Piece{Type: b.Type, Digest: b.Digest, Data: b.Data}); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, m := range append(img.Manifests, img.Index) {
		if err := to.Manifest(ctx, registry.Piece{Type: m.Type, Digest: m.Digest, Data: m.Data}, m.Digest); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.host + "/example/app@" + img.Index.Digest
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (s *stand) answers() string {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + s.address + "/health")
	if err != nil {
		return "nothing"
	}
	defer resp.Body.Close()
	text := make([]byte, 20)
	n, _ := resp.Body.Read(text)
	return string(text[:n])
}

func TestADeploymentThatIsNotHealthyIsTakenBack(t *testing.T) {
	s := build(t)
	one := s.push("one")
	if r, err := s.target.Run(bounded(t), one); err != nil || r.State != "healthy" || s.answers() != "one" {
		t.Fatalf("%+v %v, answers %s", r, err, s.answers())
	}
	for _, mode := range []string{"sick", "crashes"} {
		r, err := s.target.Run(bounded(t), s.push(mode))
		if err == nil || r.State != "back" || s.answers() != "one" || !strings.Contains(err.Error(), "runs again") {
			t.Fatalf("%s: %+v %v, answers %s", mode, r, err, s.answers())
		}
	}
	if r, err := s.target.Run(bounded(t), s.push("two")); err != nil || r.State != "healthy" || s.answers() != "two" {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err := s.target.Run(bounded(t), one); err != nil || s.answers() != "one" { // an older one is deployed like any other
		t.Fatalf("%+v %v", r, err)
	}
}

func TestTheFirstDeploymentHasNothingToGoBackTo(t *testing.T) {
	s := build(t)
	r, err := s.target.Run(bounded(t), s.push("crashes"))
	if err == nil || r.State != "down" || !strings.Contains(err.Error(), "nothing to go back to") {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err = s.target.Run(bounded(t), s.push("one")); err != nil || r.State != "healthy" {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestARunThatWasKilledGoesBackToWhatWasWell(t *testing.T) {
	s := build(t)
	if _, err := s.target.Run(bounded(t), s.push("one")); err != nil {
		t.Fatal(err)
	}
	sick := s.push("sick")
	ctx, target := bounded(t), s.target
	// Killed after the tag was moved: the record says begun, and what runs is the sick one.
	r := Result{Wanted: sick, State: "begun"}
	var err error
	if r.Previous, err = target.id(ctx, target.Image); err != nil {
		t.Fatal(err)
	}
	if _, err := target.docker(ctx, "pull", sick); err != nil {
		t.Fatal(err)
	}
	if _, err := target.docker(ctx, "tag", sick, target.Image); err != nil {
		t.Fatal(err)
	}
	if err := target.remember(r); err != nil {
		t.Fatal(err)
	}
	if r, err = s.target.Run(bounded(t), s.push("crashes")); err == nil || r.State != "back" || s.answers() != "one" {
		t.Fatalf("%+v %v, answers %s", r, err, s.answers())
	}
}

func TestNothingIsTouchedThatMayNotBeDeployed(t *testing.T) {
	s := build(t)
	one := s.push("one")
	if _, err := s.target.Run(bounded(t), one); err != nil {
		t.Fatal(err)
	}
	digest := one[strings.Index(one, "@"):]
	for _, wanted := range []string{"", s.host + "/example/app:latest", s.host + "/other/app" + digest, one + " --privileged", "-x" + digest, s.host + "/example/app@sha256:12"} {
		var refusal *Refusal
		if _, err := s.target.Run(bounded(t), wanted); !errors.As(err, &refusal) {
			t.Errorf("%q: %v", wanted, err)
		}
	}
	if _, err := s.target.Run(bounded(t), s.host+"/example/app@sha256:"+strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "nothing was touched") {
		t.Error(err)
	}
	release, err := s.target.hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.target.Run(bounded(t), one); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Error(err)
	}
	release()
	if s.answers() != "one" || s.target.Last().State != "healthy" {
		t.Errorf("answers %s, %+v", s.answers(), s.target.Last())
	}
}
