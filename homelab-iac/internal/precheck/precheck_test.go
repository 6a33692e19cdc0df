package precheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/internal/watch"
)

var now = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// service is one that is backed up in both tiers.
func service(name, host string) catalog.Service {
	return catalog.Service{Name: name, Host: host, Backup: catalog.Backup{RPO: map[string]time.Duration{"fast": 26 * time.Hour, "slow": 192 * time.Hour},
		Paths: []catalog.Path{{Path: "/srv/" + name}}}}
}

// well is a machine on which the first four looks have nothing to say.
func well() *look {
	l := &look{Site: Site{Host: "h", Catalog: []catalog.Service{service("a", "h"), service("b", "h"), service("c", "other")},
		Checks: map[string]time.Time{"fast": now.Add(-time.Hour), "slow": now.Add(-48 * time.Hour)}, Now: func() time.Time { return now }, Say: func(string) {}},
		snapshots: map[string][]restic.Snapshot{}, errs: map[string]error{}}
	for _, tier := range []string{"fast", "slow"} {
		for i, name := range []string{"a", "b"} {
			l.snapshots[tier] = append(l.snapshots[tier], restic.Snapshot{ID: tier + name, Host: "h", Tags: []string{"tier:" + tier, "svc:" + name}, Time: now.Add(-time.Duration(i+1) * time.Hour)})
			l.States = append(l.States, watch.State{Monitor: catalog.FreshMonitor(tier, name)})
		}
		l.States = append(l.States, watch.State{Monitor: catalog.CheckMonitor(tier, "h")})
	}
	l.Proof.Ended, l.Proof.Verdict = now.Add(-24*time.Hour), "green"
	if err := json.Unmarshal([]byte(`{"services":[{"service":"a"},{"service":"b"}]}`), &l.Proof); err != nil {
		panic(err)
	}
	return l
}

func TestBackupsChecksAndTheDrillAreSignedOnlyWhenAllIsWell(t *testing.T) {
	trouble := func(monitor string) func(*look) {
		return func(l *look) {
			for i := range l.States {
				if l.States[i].Monitor == monitor {
					l.States[i].Trouble = "it is broken"
				}
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(*look)
		look  int // the number of the sign-off
		want  string
	}{
		"all is well":                       {func(*look) {}, 0, ""},
		"a service is not fresh":            {trouble(catalog.FreshMonitor("fast", "b")), 1, "it is broken"},
		"a service is not watched":          {func(l *look) { l.States = l.States[1:] }, 1, "no fast repository"},
		"its snapshots are gone":            {func(l *look) { l.snapshots["fast"] = nil }, 1, "no good snapshot"},
		"the slow tier is not fresh":        {trouble(catalog.FreshMonitor("slow", "a")), 2, "it is broken"},
		"the slow repository is not whole":  {trouble(catalog.CheckMonitor("slow", "h")), 3, "it is broken"},
		"no drill":                          {func(l *look) { l.Proof = Proof{} }, 4, "ever proved"},
		"a red drill":                       {func(l *look) { l.Proof.Verdict, l.Proof.Reason = "red", "3 differences" }, 4, "3 differences"},
		"an old drill":                      {func(l *look) { l.Proof.Ended = now.Add(-9 * 24 * time.Hour) }, 4, "8d is the limit"},
		"a drill of the future":             {func(l *look) { l.Proof.Ended = now.Add(time.Hour) }, 4, "8d is the limit"},
		"a drill that left something out":   {func(l *look) { l.Proof.Services = l.Proof.Services[:1] }, 4, "b was not in it"},
		"a drill in which one did not work": {func(l *look) { l.Proof.Services[1].Error = "x" }, 4, "b was not in it"},
	} {
		t.Run(name, func(t *testing.T) {
			l := well()
			c.spoil(l)
			for i := range 4 {
				s := l.one(t.Context(), i+1, looks[i].name, looks[i].look)
				if s.Signed != (i+1 != c.look) {
					t.Errorf("%d: %+v", i+1, s)
				}
				if !s.Signed && (!strings.Contains(s.Evidence, c.want) || s.Cure == "") {
					t.Errorf("%d: want %q: %+v", i+1, c.want, s)
				}
				if s.Signed && (s.Evidence == "" || s.Cure != "" || s.Age == "") {
					t.Errorf("%d: %+v", i+1, s)
				}
			}
		})
	}
}

func TestAMachineWithNothingToLoseIsSigned(t *testing.T) {
	l := well()
	l.Host, l.Catalog = "empty", nil
	for _, i := range []int{0, 1, 2, 5, 6, 7} {
		if s := l.one(t.Context(), i+1, looks[i].name, looks[i].look); !s.Signed {
			t.Errorf("%+v", s)
		}
	}
}

func TestRefsAreReadAsGitReadsThem(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("me/notes.git/HEAD", "ref: refs/heads/main\n")
	write("me/notes.git/packed-refs", "# pack-refs with: peeled fully-peeled sorted\naaaa refs/heads/main\nbbbb refs/tags/v1\n^cccc\n")
	write("me/notes.git/refs/heads/main", "dddd\n")
	write("me/notes.git/refs/pull/1/head", "eeee\n")
	write("only-called-so.git/x", "")
	is, err := gitRefs(root)
	want := map[string]map[string]string{"me/notes.git": {"HEAD": "ref: refs/heads/main", "refs/heads/main": "dddd", "refs/tags/v1": "bbbb", "refs/pull/1/head": "eeee"}}
	if err != nil || !reflect.DeepEqual(is, want) {
		t.Errorf("%v %v", is, err)
	}
	for change, c := range map[string]struct{ was, want string }{
		"nothing":  {"", ""},
		"a push":   {"refs/heads/main", "newer than the backup"},
		"a tag":    {"refs/tags/v1", "newer than the backup"},
		"a branch": {"refs/heads/gone", "removed since"},
	} {
		was := map[string]map[string]string{"me/notes.git": {}}
		for k, v := range is["me/notes.git"] {
			was["me/notes.git"][k] = v
		}
		if c.was != "" {
			was["me/notes.git"][c.was] = "0000"
		}
		if d := refsDiffer(was, is); (c.want == "") != (d == "") || !strings.Contains(d, c.want) {
			t.Errorf("%s: %q", change, d)
		}
	}
	if d := refsDiffer(nil, is); !strings.Contains(d, "not in the backup") {
		t.Error(d)
	}
	if d := refsDiffer(is, nil); !strings.Contains(d, "not here") {
		t.Error(d)
	}
}

// outside plays Infisical and GitLab.
type outside struct {
	*httptest.Server
	secrets map[string]string
	state   string
	status  int
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{secrets: map[string]string{"A": "hush-a", "B": "hush-b"}, state: `{"version":4,"serial":7,"lineage":"x"}`, status: http.StatusOK}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case o.status != http.StatusOK:
			w.WriteHeader(o.status)
		case r.URL.Path == "/state":
			if _, token, ok := r.BasicAuth(); !ok || token != "hush-token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			io.WriteString(w, o.state)
		case r.Method == http.MethodPost && r.URL.Path == "/api/v1/auth/universal-auth/login":
			var in struct{ ClientID, ClientSecret string }
			if json.NewDecoder(r.Body).Decode(&in) != nil || in.ClientSecret != "hush-secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			io.WriteString(w, `{"accessToken":"t1","expiresIn":60}`)
		case r.URL.Path == "/api/v3/secrets/raw" && r.Header.Get("Authorization") == "Bearer t1" && r.URL.Query().Get("environment") == "prod":
			type secret struct {
				Key   string `json:"secretKey"`
				Value string `json:"secretValue"`
			}
			list := []secret{}
			for k, v := range o.secrets {
				list = append(list, secret{k, v})
			}
			json.NewEncoder(w).Encode(map[string]any{"secrets": list})
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *outside) fetch(ctx context.Context) (map[string]string, error) {
	return FetchSecrets(ctx, site.Infisical{URL: o.URL, Project: "p", Environment: "prod"}, "id", "hush-secret")
}

func TestInfisicalsExportMustBeWhatItHas(t *testing.T) {
	const keys, export = "ENCRYPTION_KEY=0123456789abcdef0123456789abcdef\nAUTH_SECRET=0123456789abcdef0123456789abcdef\n", `[{"key":"A","value":"hush-a"},{"key":"B","value":"hush-b"},{"key":"OLD","value":"hush-c"}]`
	for name, c := range map[string]struct {
		keys, export string
		spoil        func(*outside, *look)
		want         string
	}{
		"all is there":           {keys, export, nil, ""},
		"a secret is missing":    {keys, `[{"key":"A","value":"hush-a"}]`, nil, "1 secrets of Infisical are not in"},
		"a secret is older":      {keys, strings.Replace(export, "hush-b", "hush-z", 1), nil, "1 are there with an older value"},
		"no keys":                {"", export, nil, "no ENCRYPTION_KEY"},
		"one key":                {"ENCRYPTION_KEY=0123456789abcdef0123456789abcdef\n", export, nil, "no AUTH_SECRET"},
		"an export that is none": {keys, "{", nil, "cannot be read"},
		"Infisical is down":      {keys, export, func(o *outside, _ *look) { o.status = 500 }, "500"},
		"Infisical is empty":     {keys, export, func(o *outside, _ *look) { o.secrets = nil }, "no secret there"},
		"nobody can be asked":    {keys, export, func(_ *outside, l *look) { l.Secrets = nil }, "cannot be asked"},
		"no kit":                 {keys, export, func(_ *outside, l *look) { l.Kit = "" }, "kit is not here"},
	} {
		o, l := newOutside(t), well()
		l.Kit, l.Secrets = t.TempDir(), o.fetch
		for file, text := range map[string]string{kitKeys: c.keys, kitExport: c.export} {
			if err := os.WriteFile(filepath.Join(l.Kit, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.spoil != nil {
			c.spoil(o, l)
		}
		s := l.one(t.Context(), 9, "", secretsKept)
		if s.Signed != (c.want == "") || !strings.Contains(s.Evidence, c.want) || strings.Contains(fmt.Sprint(s), "hush") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestTheStateIsFetchedOrTheReasonIsTold(t *testing.T) {
	o := newOutside(t)
	if text, err := FetchState(t.Context(), o.URL+"/state", "me", "hush-token"); err != nil || string(text) != o.state {
		t.Errorf("%s %v", text, err)
	}
	for want, spoil := range map[string]func(){
		"answers 500":  func() { o.status = 500 },
		"has none yet": func() { o.status = 404 },
		"token is":     func() { o.status = 401 },
		"version is 3": func() { o.status, o.state = 200, `{"version":3,"lineage":"x"}` },
		"not JSON":     func() { o.state = "<html>" },
	} {
		o.status = http.StatusOK
		spoil()
		if _, err := FetchState(t.Context(), o.URL+"/state", "me", "hush-token"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("want %q: %v", want, err)
		}
	}
	o.Close()
	if _, err := FetchState(t.Context(), o.URL+"/state", "me", "hush-token"); err == nil || strings.Contains(err.Error(), o.URL) {
		t.Error(err)
	}
}

func TestTwoWaysInMustWork(t *testing.T) {
	way := func(what string, run ...string) site.Way { return site.Way{What: what, Run: run} }
	for want, ways := range map[string][]site.Way{
		"these work: SSH, the console":  {way("SSH", "true"), way("the console", "true")},
		"these work: SSH, the LAN":      {way("SSH", "true"), way("the console", "false"), way("the LAN", "true")},
		"only 1 works: not the console": {way("SSH", "true"), way("the console", "false")},
		"1 ways in are named":           {way("SSH", "true")},
		"not the console (fork/exec":    {way("SSH", "true"), way("the console", "/not/there")},
	} {
		l := well()
		l.Ways = ways
		s := l.one(t.Context(), 11, "", waysIn)
		if !strings.Contains(s.Evidence, want) || s.Signed != strings.HasPrefix(want, "these") {
			t.Errorf("%q: %+v", want, s)
		}
	}
}

func TestAnAlertMustReachSomebody(t *testing.T) {
	for want, spoil := range map[string]func(*look){
		"Discord kept a test alert":     func(*look) {},
		"1 of 6 monitors are not green": func(l *look) { l.States[0].Trouble = "broken" },
		"nothing is watched":            func(l *look) { l.States = nil },
		"pushes to no Uptime Kuma":      func(l *look) { l.Push = nil },
		"does not take pushes":          func(l *look) { l.Push = func(context.Context) error { return errors.New("502") } },
		"there is no webhook":           func(l *look) { l.Tell = nil },
		"was not taken":                 func(l *look) { l.Tell = func(context.Context, string) error { return errors.New("404") } },
	} {
		l := well()
		told := ""
		l.Push = func(context.Context) error { return nil }
		l.Tell = func(_ context.Context, text string) error { told = text; return nil }
		spoil(l)
		s := l.one(t.Context(), 12, "", alertReaches)
		if !strings.Contains(s.Evidence, want) || s.Signed != strings.HasPrefix(want, "Discord") || s.Signed && !strings.Contains(told, "precheck on h") {
			t.Errorf("%q: %+v", want, s)
		}
	}
}

func TestALookThatTakesTooLongIsNotSigned(t *testing.T) {
	l := well()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := l.one(ctx, 11, "", func(ctx context.Context, _ *look) (seen, error) { return seen{}, ctx.Err() })
	if s.Signed || !strings.Contains(s.Evidence, "interrupted") {
		t.Errorf("%+v", s)
	}
}
