package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/homelab-iac/internal/infisical"
	"home.arpa/lab/homelab-iac/internal/secrets"
	"home.arpa/lab/homelab-iac/services"
	fake "home.arpa/lab/homelab-iac/test/infisical"
)

// writer is set in the process that TestAKillLeavesWholeFiles starts and kills: it names the folder.
const writer = "HOMELAB_SECRETS_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writer); dir != "" {
		for n := 0; ; n++ {
			if err := secrets.Write(dir, map[string][]byte{"web": long(n % 2)}, []secrets.Result{{Service: "web"}}); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			if n == 1 {
				fmt.Println("writing")
			}
		}
	}
	os.Exit(m.Run())
}

func long(n int) []byte { return []byte(strings.Repeat(fmt.Sprintf("SECRET_%d='x'\n", n), 20000)) }

const service = "about: A page.\nhost: alpha\nnothing: It is a page.\n"

func catalogOf(compose string) fstest.MapFS {
	return fstest.MapFS{
		"web/service.yaml": {Data: []byte(service)},
		"web/compose.yaml": {Data: []byte("services:\n  web:\n    image: x/web:1\n    environment: {P: \"" + compose + "\"}\n    healthcheck: {test: [CMD, \"true\"]}\n    mem_limit: 1g\n    cpus: 1.0\n")},
	}
}

func serve(t *testing.T) (*fake.Server, *infisical.Client) {
	t.Helper()
	s := fake.New()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, &infisical.Client{URL: h.URL, ID: s.ID, Secret: s.Secret, Project: s.Project, Environment: s.Environment, Pause: time.Millisecond}
}

func gather(t *testing.T, c *infisical.Client, compose string) (map[string][]byte, []secrets.Result, error) {
	t.Helper()
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return secrets.Gather(t.Context(), secrets.Request{Catalog: catalogOf(compose), Host: "alpha", Set: map[string]string{"TAILNET_ADDRESS": "100.64.0.7", "B": "not this"}}, c.Secrets)
}

func TestFilesHoldWhatTheFolderAndItsImportsHoldAndOnlyTheirOwnerReadsThem(t *testing.T) {
	s, c := serve(t)
	s.Set("/web", "A", "it's $5 # \"quoted\"\nsecond line")
	s.Set("/shared", "A", "an import comes after")
	s.Set("/shared", "B", "from the import")
	s.Import("/web", "/shared")
	s.Fail(503, 429) // the login passes with the third try
	texts, results, err := gather(t, c, "${A:?}${B:?}")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Write(dir, texts, results); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "web.env")
	got, err := os.ReadFile(file)
	want := "# Written by homelab secrets pull.\nA='it\\'s $5 # \"quoted\"\nsecond line'\nB='from the import'\nTAILNET_ADDRESS='100.64.0.7'\n"
	if string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 || !results[0].Changed || !slices.Equal(results[0].Variables, []string{"A", "B", "TAILNET_ADDRESS"}) {
		t.Errorf("%v %v %+v", err, st.Mode(), results)
	}

	// The same again changes nothing; a mode that others can read is set right.
	if err := secrets.Write(dir, texts, results); err != nil || results[0].Changed {
		t.Errorf("the second time: %v %+v", err, results)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Write(dir, texts, results); err != nil || !results[0].Changed {
		t.Errorf("with a loose mode: %v %+v", err, results)
	}
	if st, _ := os.Stat(file); st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Write(dir, texts, results); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("a folder that others may enter: %v", err)
	}
}

func TestEverythingThatIsMissingIsToldAtOnceAndNoValueIs(t *testing.T) {
	s, c := serve(t)
	s.Set("/web", "BAD-NAME", "canary")
	s.Set("/web", "SLASH", `canary\`)
	_, _, err := gather(t, c, "${A:?}${C:?}${TAILNET_ADDRESS:?}")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"A is missing: add it to the folder /web", "C is missing", `"BAD-NAME" is not the name`, `SLASH has a \ at its end`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	for _, never := range []string{"canary", "TAILNET"} {
		if strings.Contains(err.Error(), never) {
			t.Errorf("the error has %q: %v", never, err)
		}
	}
}

func TestRefusalsSayTheCureAndNoSecret(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*fake.Server, *infisical.Client)
		want   string
	}{
		"a wrong secret":       {func(_ *fake.Server, c *infisical.Client) { c.Secret = "canary-secret" }, "make a new client secret"},
		"another project":      {func(_ *fake.Server, c *infisical.Client) { c.Project = "other" }, "give the machine identity a role"},
		"an environment typed": {func(_ *fake.Server, c *infisical.Client) { c.Environment = "prd" }, "no such folder"},
		"a server that is ill": {func(s *fake.Server, _ *infisical.Client) { s.Fail(500, 502, 503) }, "503"},
		"a server elsewhere":   {func(_ *fake.Server, c *infisical.Client) { c.URL += "/api" }, "no such folder"},
	} {
		s, client := serve(t)
		s.Set("/web", "A", "canary")
		c.change(s, client)
		err := client.Login(t.Context())
		if err == nil {
			_, err = client.Secrets(t.Context(), "/web")
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), s.Secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSecretsTravelOverHTTPSOnly(t *testing.T) {
	c := infisical.Client{URL: "http://infisical.example.org", ID: "a", Secret: "b", Project: "c", Environment: "d"}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "https only") {
		t.Error(err)
	}
	c.URL = "http://127.0.0.1:8085"
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if err := (&infisical.Client{}).Check(); err == nil || strings.Count(err.Error(), "is not set") != 4 {
		t.Errorf("all that is missing at once: %v", err)
	}
}

// TestOurCatalogAsksForSecretsByName fails when the way in which compose files insist on variables is not understood any more.
func TestOurCatalogAsksForSecretsByName(t *testing.T) {
	for name, want := range map[string][]string{
		"gitea": {"GITEA_DB_PASSWORD", "TAILNET_ADDRESS"}, "infisical": {"AUTH_SECRET", "ENCRYPTION_KEY", "INFISICAL_DB_PASSWORD"}, "searxng": {"SEARXNG_SECRET", "TAILNET_ADDRESS"}, "photos": nil,
	} {
		if got, err := secrets.Needs(services.FS, name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s needs %v: %v", name, got, err)
		}
	}
}

func TestAKillLeavesWholeFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), writer+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 7)); err != nil { // it has begun
			t.Fatal(err)
		}
		for range round * 3 { // read while it writes: always one of the two
			whole(t, dir)
		}
		cmd.Process.Kill() //nolint:errcheck // it is this test's own
		if err := cmd.Wait(); errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
		whole(t, dir)
	}
}

func whole(t *testing.T, dir string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "web.env"))
	if err != nil || string(got) != string(long(0)) && string(got) != string(long(1)) {
		t.Fatalf("the file is neither the old one nor the new one: %d bytes, %v", len(got), err)
	}
}
