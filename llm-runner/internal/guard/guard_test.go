package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	password = "correct horse"
	secret   = "0123456789abcdef0123"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		says   []string // parts of the error; none: valid
	}{
		{"loopback, open", Config{Listen: "127.0.0.1:8080"}, nil},
		{"IPv6 loopback, open", Config{Listen: "[::1]:8080"}, nil},
		{"localhost, open", Config{Listen: "localhost:8080"}, nil},
		{"all addresses, open", Config{Listen: ":8080"}, []string{"set a password or tokens"}},
		{"all IPv4 addresses, open", Config{Listen: "0.0.0.0:8080"}, []string{"set a password or tokens"}},
		{"a name, open", Config{Listen: "runner.lan:8080"}, []string{"set a password or tokens"}},
		{"all addresses, with a password", Config{Listen: ":8080", Password: password}, nil},
		{"all addresses, with a token", Config{Listen: ":8080", Tokens: map[string]string{"a": secret}}, nil},
		{"all faults at once", Config{Listen: "8080", Password: "short", Tokens: map[string]string{"a": "short"}, Hosts: []string{"https://x", "fd00::1"}},
			[]string{`listen "8080"`, "password:", "tokens.a:", `"https://x"`}},
	} {
		err := c.config.Validate()
		if (err == nil) != (c.says == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q is missing in %v", c.name, s, err)
			}
		}
		if err != nil && strings.Contains(err.Error(), "fd00::1") {
			t.Errorf("%s: an address is a host name: %v", c.name, err)
		}
	}
}

// open returns a guard before a handler that answers "in" and the JSON of a health page.
func open(t *testing.T, c Config) http.Handler {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"status":"degraded","providers":[{"name":"secret"}]}`)
			return
		}
		_, _ = io.Copy(w, io.MultiReader(strings.NewReader("in "), r.Body))
	}))
}

// send sends "METHOD URL" with headers "Key: value".
func send(h http.Handler, line string, header ...string) *http.Response {
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, target, nil)
	if !strings.HasPrefix(target, "http") {
		r.Host = "127.0.0.1:8080"
	}
	for _, kv := range header {
		k, v, _ := strings.Cut(kv, ": ")
		r.Header.Add(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// logIn returns the cookie of somebody who knows the password.
func logIn(t *testing.T, h http.Handler) string {
	t.Helper()
	resp := guess(h, password, "192.0.2.1:5")
	if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Fatalf("log in: status %d, cookies %v", resp.StatusCode, resp.Cookies())
	}
	return "Cookie: " + resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
}

func guess(h http.Handler, word, from string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(url.Values{"password": {word}, "next": {"/chats/7?a=b"}}.Encode()))
	r.Host, r.RemoteAddr = "127.0.0.1:8080", from
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, kv := range header {
		k, v, _ := strings.Cut(kv, ": ")
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestWhoComesIn(t *testing.T) {
	closed := open(t, Config{Password: password, Tokens: map[string]string{"a": "other-token-0123456789", "b": secret}})
	free := open(t, Config{})
	login := logIn(t, closed)
	const same, cross = "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"
	for _, c := range []struct {
		name   string
		h      http.Handler
		line   string
		header []string
		status int
	}{
		{"nobody", closed, "GET /v1/models", nil, 401},
		{"nobody, metrics", closed, "GET /metrics", nil, 401},
		{"a browser is sent to the form", closed, "GET /chats/7?a=b", []string{"Accept: text/html"}, 303},
		{"a browser's script is not", closed, "POST /chats/7", []string{"Accept: text/html"}, 401},
		{"a program", closed, "POST /v1/chat/completions", []string{"Authorization: Bearer " + secret}, 200},
		{"a program, other spelling", closed, "GET /", []string{"Authorization: bearer  " + secret}, 200},
		{"a program of Anthropic's kind", closed, "GET /metrics", []string{"X-Api-Key: " + secret}, 200},
		{"a program in a foreign page", closed, "POST /", []string{"Authorization: Bearer " + secret, cross}, 200},
		{"a wrong token", closed, "GET /", []string{"Authorization: Bearer x"}, 401},
		{"a wrong token with a cookie", closed, "GET /", []string{"Authorization: Bearer x", login}, 401},
		{"a wrong token, health", closed, "GET /health", []string{"Authorization: Bearer x"}, 401},
		{"the password is no token", closed, "GET /", []string{"Authorization: Bearer " + password}, 401},
		{"a person", closed, "GET /", []string{login}, 200},
		{"a person acts", closed, "POST /", []string{login, same}, 200},
		{"a person acts, no Sec-Fetch", closed, "POST /", []string{login, "Origin: http://127.0.0.1:8080"}, 200},
		{"a person, but who knows from where", closed, "POST /", []string{login}, 403},
		{"a person, foreign page", closed, "POST /", []string{login, cross}, 403},
		{"a person, foreign page of the same site", closed, "POST /", []string{login, "Sec-Fetch-Site: same-site"}, 403},
		{"a person, foreign origin", closed, "POST /", []string{login, "Origin: http://evil.example"}, 403},
		{"a person, hidden origin", closed, "DELETE /", []string{login, "Origin: null"}, 403},
		{"a person follows a foreign link", closed, "GET /", []string{login, cross, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{"a foreign page embeds", closed, "GET /", []string{login, cross, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"a foreign page frames", closed, "GET /", []string{login, cross, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"a forged cookie", closed, "GET /", []string{"Cookie: " + cookieName + "=1.9999999999.abc.def"}, 401},
		{"one good cookie of two", closed, "GET /", []string{"Cookie: " + cookieName + "=x", login}, 200},
		{"open, a program", free, "POST /", nil, 200},
		{"open, own page", free, "POST /", []string{same}, 200},
		{"open, foreign page", free, "POST /", []string{cross}, 403},
		{"open, foreign page, GET", free, "GET /v1/models", []string{cross, "Sec-Fetch-Mode: cors"}, 403},
		{"open, foreign origin", free, "POST /", []string{"Origin: https://evil.example"}, 403},
		{"open, any token", free, "POST /", []string{"Authorization: Bearer x"}, 200},
		{"open, a foreign page with a token", free, "POST /", []string{"Authorization: Bearer x", cross}, 403},
	} {
		resp := send(c.h, c.line, c.header...)
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d: %s", c.name, resp.StatusCode, c.status, text(resp))
			continue
		}
		if got := strings.HasPrefix(text(resp), "in "); got != (c.status == 200) {
			t.Errorf("%s: the handler was reached: %v", c.name, got)
		}
		if c.status == 303 && resp.Header.Get("Location") != "/login?next=%2Fchats%2F7%3Fa%3Db" {
			t.Errorf("%s: sent to %s", c.name, resp.Header.Get("Location"))
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("X-DNS-Prefetch-Control") != "off" || resp.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: headers %v", c.name, resp.Header)
		}
	}
}

func TestHealthTellsStrangersTheStatusOnly(t *testing.T) {
	h := open(t, Config{Tokens: map[string]string{"a": secret}})
	resp := send(h, "GET /health")
	if got := text(resp); resp.StatusCode != 503 || got != `{"status":"degraded"}`+"\n" {
		t.Errorf("status %d, %s", resp.StatusCode, got)
	}
	if got := text(send(h, "GET /health", "X-Api-Key: "+secret)); !strings.Contains(got, "providers") {
		t.Errorf("with a token: %s", got)
	}
	if resp := send(h, "POST /health"); resp.StatusCode != 401 {
		t.Errorf("POST: status %d", resp.StatusCode)
	}
}

// Clients of Anthropic's API look for the outer type, those of OpenAI's for what is in error.
func TestWhoMayNotComeInReadsItInTheirOwnWords(t *testing.T) {
	got := text(send(open(t, Config{Tokens: map[string]string{"a": secret}}), "POST /v1/messages", "X-Api-Key: x"))
	if want := `{"error":{"code":"invalid_api_key","message":"a valid token is needed: send it as Authorization: Bearer TOKEN","param":null,"type":"authentication_error"},"type":"error"}` + "\n"; got != want {
		t.Errorf("%s", got)
	}
}

func TestForeignNamesAreRefused(t *testing.T) {
	local := open(t, Config{Hosts: []string{"Runner.example.org"}})
	wide := open(t, Config{Listen: "0.0.0.0:80", Tokens: map[string]string{"a": secret}})
	named := open(t, Config{Listen: "100.64.0.7:80", Tokens: map[string]string{"a": secret}})
	for _, c := range []struct {
		h    http.Handler
		host string
		ok   bool
	}{
		{local, "127.0.0.1:8080", true}, {local, "localhost", true}, {local, "LOCALHOST:1", true}, {local, "[::1]:8080", true}, {local, "127.0.0.2", true},
		{local, "runner.example.org:443", true}, {local, "runner.example.org.", true},
		{local, "evil.example", false}, {local, "evil.example:8080", false}, {local, "127.0.0.1.evil.example", false}, {local, "192.168.1.2:8080", false}, {local, "", false},
		{wide, "192.168.1.2", true}, {wide, "[fd00::1]:80", true}, {wide, "evil.example", false},
		{named, "100.64.0.7", true}, {named, "100.64.0.8", false}, {named, "localhost", true},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if (w.Code == 200) != c.ok || !c.ok && w.Code != http.StatusMisdirectedRequest {
			t.Errorf("%q: status %d", c.host, w.Code)
		}
	}
}

func TestLogIn(t *testing.T) {
	h := open(t, Config{Password: password})
	form := send(h, "GET /login?next=//evil.example")
	if body := text(form); form.StatusCode != 200 || !strings.Contains(body, `type="password"`) || strings.Contains(body, "evil") {
		t.Errorf("form: status %d, %s", form.StatusCode, body)
	}
	resp := guess(h, password, "192.0.2.1:5")
	c := resp.Cookies()[0]
	if resp.Header.Get("Location") != "/chats/7?a=b" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.Path != "/" {
		t.Errorf("%v, cookie %+v", resp.Header, c)
	}
	if c := guess(h, password, "192.0.2.1:5", "X-Forwarded-Proto: https").Cookies()[0]; !c.Secure {
		t.Errorf("over https: cookie %+v", c)
	}
	if resp := guess(h, "wrong", "192.0.2.1:5"); resp.StatusCode != 401 || len(resp.Cookies()) != 0 || !strings.Contains(text(resp), "Wrong password") {
		t.Errorf("wrong password: status %d", resp.StatusCode)
	}
	if resp := guess(h, password, "192.0.2.1:5", "Sec-Fetch-Site: cross-site"); resp.StatusCode != 403 {
		t.Errorf("from a foreign page: status %d", resp.StatusCode)
	}
	for line, status := range map[string]int{"PUT /login": 405, "GET /logout": 405} {
		if resp := send(h, line); resp.StatusCode != status {
			t.Errorf("%s: status %d", line, resp.StatusCode)
		}
	}
}

func TestLogOut(t *testing.T) {
	h := open(t, Config{Password: password})
	login, other := logIn(t, h), logIn(t, h)
	if resp := send(h, "POST /logout", login, "Sec-Fetch-Site: cross-site"); resp.StatusCode != 403 {
		t.Errorf("a foreign page logs out: status %d", resp.StatusCode)
	}
	resp := send(h, "POST /logout", login, "Sec-Fetch-Site: same-origin")
	if resp.StatusCode != 303 || resp.Cookies()[0].Value != "" || !resp.Cookies()[0].Expires.Before(time.Now()) {
		t.Errorf("status %d, cookies %v", resp.StatusCode, resp.Cookies())
	}
	if resp := send(h, "GET /", login); resp.StatusCode != 401 {
		t.Errorf("a kept copy of the cookie: status %d", resp.StatusCode)
	}
	if resp := send(h, "GET /", other); resp.StatusCode != 200 {
		t.Errorf("another browser: status %d", resp.StatusCode)
	}
}

func TestCookiesOutliveARestartButNotTheirTimeNorThePassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	login := logIn(t, open(t, Config{Password: password, KeyFile: file}))
	if resp := send(open(t, Config{Password: password, KeyFile: file}), "GET /", login); resp.StatusCode != 200 {
		t.Errorf("after a restart: status %d", resp.StatusCode)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || st.Size() != keySize {
		t.Errorf("key file: %v, %v", st, err)
	}
	if resp := send(open(t, Config{Password: "another one", KeyFile: file}), "GET /", login); resp.StatusCode != 401 {
		t.Errorf("after a new password: status %d", resp.StatusCode)
	}
	if resp := send(open(t, Config{Password: password}), "GET /", login); resp.StatusCode != 401 {
		t.Errorf("with another key: status %d", resp.StatusCode)
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Listen: "127.0.0.1:1", KeyFile: file}); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a broken key file: %v", err)
	}
	s := newSigner([]byte("k"), password)
	value, expires := s.issue(time.Now())
	if !s.valid(value, expires.Add(-2*time.Second)) || s.valid(value, expires) {
		t.Error("a cookie must be good until it expires")
	}
}

func TestWrongPasswordsCostTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, Config{Password: password})
		wrong := func(from string, header ...string) (int, string) {
			resp := guess(h, "wrong", from, header...)
			return resp.StatusCode, resp.Header.Get("Retry-After")
		}
		for range freeGuesses {
			if status, _ := wrong("192.0.2.1:5"); status != 401 {
				t.Fatalf("status %d", status)
			}
		}
		for _, want := range []string{"1", "2", "4", "8", "16", "32", "64", "128", "256", "300", "300"} {
			if status, retry := wrong("192.0.2.1:6"); status != 429 || retry != want {
				t.Fatalf("status %d, Retry-After %s, want %s", status, retry, want)
			}
			if resp := guess(h, password, "192.0.2.1:7"); resp.StatusCode != 429 {
				t.Fatalf("the right password meanwhile: status %d", resp.StatusCode)
			}
			if status, _ := wrong("192.0.2.2:6"); want == "1" && status != 401 {
				t.Fatalf("another address: status %d", status)
			}
			seconds, _ := time.ParseDuration(want + "s")
			time.Sleep(seconds)
			if status, _ := wrong("192.0.2.1:5"); status != 401 {
				t.Fatalf("after %s s: status %d", want, status)
			}
		}
		time.Sleep(longestWait)
		if resp := guess(h, password, "192.0.2.1:5"); resp.StatusCode != 303 {
			t.Fatalf("the right password: status %d", resp.StatusCode)
		}
		if status, _ := wrong("192.0.2.1:5"); status != 401 {
			t.Fatalf("forgiven: status %d", status)
		}
		// Behind a proxy on this machine the proxy's word counts, its last one; one network of IPv6 counts as one.
		for range freeGuesses {
			wrong("127.0.0.1:1", "X-Forwarded-For: 1.1.1.1, 2001:db8:1:2::5")
		}
		if status, _ := wrong("[::1]:1", "X-Forwarded-For: 2001:db8:1:2:ffff::6"); status != 429 {
			t.Fatalf("same network: status %d", status)
		}
		if status, _ := wrong("127.0.0.1:1", "X-Forwarded-For: 2001:db8:1:2::5, 2001:db8:1:3::5"); status != 401 {
			t.Fatalf("another network: status %d", status)
		}
	})
}

func TestLocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"": "/", "/": "/", "/a?b=c#d": "/a?b=c#d", "//evil": "/", "/\\evil": "/", "https://evil": "/", "javascript:x": "/", "a": "/", "/\t/evil": "/", "/%2F/x": "/%2F/x",
	} {
		if got := localPath(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}

func TestPanics(t *testing.T) {
	var logged bytes.Buffer
	g, err := New(Config{Listen: "127.0.0.1:1", Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	panics := func(v any, write bool) (w *httptest.ResponseRecorder, out any) {
		h := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if write {
				_, _ = io.WriteString(w, "half")
			}
			panic(v)
		}))
		w = httptest.NewRecorder()
		defer func() { out = recover() }()
		r := httptest.NewRequest(http.MethodGet, "/x?token=hidden", nil)
		r.Host = "localhost"
		h.ServeHTTP(w, r)
		return w, nil
	}
	if w, out := panics("sk-secret", false); out != nil || w.Code != 500 || !strings.Contains(w.Body.String(), "internal_error") {
		t.Errorf("before an answer: %v, %v", w, out)
	}
	if _, out := panics(errors.New("sk-secret"), true); out != http.ErrAbortHandler {
		t.Errorf("in the middle of an answer: %v", out)
	}
	if strings.Contains(logged.String(), "secret") || strings.Contains(logged.String(), "hidden") || !strings.Contains(logged.String(), "guard_test.go") {
		t.Errorf("log: %s", logged.String())
	}
	logged.Reset()
	if _, out := panics(http.ErrAbortHandler, true); out != http.ErrAbortHandler || logged.Len() > 0 {
		t.Errorf("a handler that gives up: %v, log %s", out, logged.String())
	}
}

func TestBodiesAreBoundedAndStreamsFlow(t *testing.T) {
	g, err := New(Config{Listen: "127.0.0.1:1", MaxBody: 10, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan struct{})
	s := httptest.NewServer(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var tooLarge *http.MaxBytesError
		if _, err := io.ReadAll(r.Body); errors.As(err, &tooLarge) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		c := http.NewResponseController(w)
		if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "a")
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		<-next
	})))
	defer s.Close()
	resp, err := http.Post(s.URL, "text/plain", strings.NewReader("01234567890"))
	if err != nil || resp.StatusCode != 413 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	resp, err = http.Post(s.URL, "text/plain", strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	close(next)
	resp.Body.Close()
}

func TestServerHasItsBounds(t *testing.T) {
	s := Server("127.0.0.1:0", http.NotFoundHandler())
	if s.ReadHeaderTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.WriteTimeout != 0 || s.ReadTimeout != 0 {
		t.Errorf("%+v", s)
	}
}

func FuzzCookie(f *testing.F) {
	s := newSigner([]byte("k"), "p")
	value := "1.1000000100.nonce." + s.mac("1.1000000100.nonce") // the same in every process
	f.Add(value)
	f.Add("1.99.a.b")
	f.Add("1.-1..")
	f.Fuzz(func(t *testing.T, v string) {
		c, ok := parseCookie(v)
		if ok && c.head+"."+c.mac != v {
			t.Fatalf("%q is taken apart into %+v", v, c)
		}
		if v != value && s.valid(v, time.Unix(1e9, 0)) {
			t.Fatalf("%q was never issued", v)
		}
		s.revoke(v[:min(len(v), 5)], time.Unix(1e9, 0))
	})
}

func TestAProgramDoesNotDecideForAPerson(t *testing.T) {
	tokens := map[string]string{"editor": "editor-0123456789", "phone": "phone-0123456789"}
	for _, c := range []struct {
		password      string
		deciders      []string
		editor, phone bool
	}{
		{"correct horse", nil, false, false}, {"correct horse", []string{"phone"}, false, true}, {"", []string{"phone"}, false, true}, {"", nil, true, true},
	} {
		g, err := New(Config{Listen: "127.0.0.1:8080", Password: c.password, Tokens: tokens, Deciders: c.deciders})
		if err != nil {
			t.Fatal(err)
		}
		h := g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, Decides(r)) }))
		for name, want := range map[string]bool{"editor": c.editor, "phone": c.phone} {
			r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/x", nil)
			r.Header.Set("Authorization", "Bearer "+tokens[name])
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Body.String() != fmt.Sprint(want) {
				t.Errorf("%+v: %s decides: %s", c, name, w.Body)
			}
		}
	}
	if !Decides(httptest.NewRequest(http.MethodPost, "/x", nil)) {
		t.Error("where nobody is asked who they are, nobody decides")
	}
}
