package mcpclient

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"
)

// An office is an authorization server and an MCP server that takes its tokens, as far as a login goes.
type office struct {
	*httptest.Server
	names   string       // the issuer that the MCP server names; "" this one
	asked   []url.Values // the requests for tokens
	proofs  []map[string]any
	headers []http.Header
	answer  func(n int, w http.ResponseWriter) // the n-th request for a token, from 1
}

func openOffice(t *testing.T) *office {
	t.Helper()
	o := &office{answer: func(n int, w http.ResponseWriter) {
		fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":3600}`, n)
	}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/oauth-protected-resource/mcp":
			fmt.Fprintf(w, `{"resource":"%s/mcp","authorization_servers":["%s"],"scopes_supported":["read"]}`, o.URL, cmp.Or(o.names, o.URL))
		case "/.well-known/oauth-authorization-server": // like many, without a word on PKCE
			fmt.Fprintf(w, `{"issuer":"%s","token_endpoint":"%s/token"}`, o.URL, o.URL)
		case "/token":
			r.ParseForm() //nolint:errcheck // it is looked at what came
			o.asked, o.headers, o.proofs = append(o.asked, r.PostForm), append(o.headers, r.Header), append(o.proofs, claims(r.Header.Get("DPoP")))
			o.answer(len(o.asked), w)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

// claims are what a JWT says, unchecked.
func claims(jwt string) (all map[string]any) {
	if parts := strings.Split(jwt, "."); len(parts) == 3 {
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		json.Unmarshal(b, &all) //nolint:errcheck // nil: it is none
	}
	return all
}

// refused has the granter of a server get a token after a refusal of the office.
func (o *office) refused(t *testing.T, c ServerConfig, status int, challenge string) (*granter, error) {
	t.Helper()
	c.Name, c.URL, c.OAuth = "a", o.URL+"/mcp", true
	x := New(Config{Tokens: t.TempDir(), Servers: []ServerConfig{c}, Log: quiet()})
	transport, _, err := x.all[0].transport()
	if err != nil {
		t.Fatal(err)
	}
	g := transport.(*mcp.StreamableClientTransport).OAuthHandler.(*granter)
	return g, g.Authorize(t.Context(), httptest.NewRequest(http.MethodPost, c.URL, nil), response(status, challenge))
}

func response(status int, challenge string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Www-Authenticate": {challenge}}, Body: io.NopCloser(strings.NewReader(""))}
}

func TestASecretGoesToItsIssuerOnly(t *testing.T) {
	home, thief := openOffice(t), openOffice(t)
	home.names = thief.URL
	c := ServerConfig{Grant: GrantClient, ClientID: "us", ClientSecret: "hunter2", Issuer: home.URL}
	if _, err := home.refused(t, c, 401, "Bearer"); err == nil || !strings.Contains(err.Error(), thief.URL) || len(thief.asked)+len(home.asked) > 0 {
		t.Errorf("%v; the other one was asked %v", err, thief.asked)
	}
	home.names = ""
	if _, err := home.refused(t, c, 401, "Bearer"); err != nil || len(home.asked) != 1 {
		t.Fatalf("%v, %v", err, home.asked)
	}
	id, secret, ok := (&http.Request{Header: home.headers[0]}).BasicAuth()
	if !ok || id != "us" || secret != "hunter2" || home.asked[0].Get("resource") != home.URL+"/mcp" || home.asked[0].Get("scope") != "read" {
		t.Errorf("it was asked %v with %v", home.asked, home.headers)
	}
	home.answer = func(_ int, w http.ResponseWriter) {
		w.Header().Set("Location", thief.URL+"/token")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	if _, err := home.refused(t, c, 401, "Bearer"); err == nil || len(thief.asked) > 0 {
		t.Errorf("sent on, it goes: %v, %v", err, thief.asked)
	}
}

func TestWhatWasRefusedIsNotAskedASecondWay(t *testing.T) {
	o := openOffice(t)
	o.answer = func(_ int, w http.ResponseWriter) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"unauthorized_client"}`)
	}
	file := filepath.Join(t.TempDir(), "jwt")
	c := ServerConfig{Grant: GrantWorkload, ClientID: "us", TokenFile: file, Issuer: o.URL}
	if _, err := o.refused(t, c, 401, "Bearer"); err == nil || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(file, []byte("a.b.c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.refused(t, c, 401, "Bearer"); err == nil || !strings.Contains(err.Error(), "unauthorized_client") || len(o.asked) != 1 || o.asked[0].Get("assertion") != "a.b.c" {
		t.Errorf("%v, after %v", err, o.asked)
	}
	o.answer = func(_ int, w http.ResponseWriter) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, strings.Repeat("<p>Bad gateway</p>", 10000))
	}
	if _, err := o.refused(t, c, 401, "Bearer"); err == nil || !strings.Contains(err.Error(), "502") || len(err.Error()) > 300 {
		t.Errorf("a page for people: %v", err)
	}
	o.asked = o.asked[:1]
	if _, err := o.refused(t, c, 403, `Bearer error="invalid_token"`); err != nil || len(o.asked) != 1 {
		t.Errorf("a refusal that no token changes: %v, after %d requests", err, len(o.asked))
	}
}

func TestATokenThatRanOutIsGotAnewWithTheFileAsItIsThen(t *testing.T) {
	o := openOffice(t)
	o.answer = func(n int, w http.ResponseWriter) {
		fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":%d}`, n, []int{0, 1, 3600}[n]) // the first is as good as over
	}
	file := filepath.Join(t.TempDir(), "jwt")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first.b.c")
	g, err := o.refused(t, ServerConfig{Grant: GrantWorkload, ClientID: "us", TokenFile: file, Issuer: o.URL}, 401, `Bearer scope="write"`)
	if err != nil {
		t.Fatal(err)
	}
	write("second.b.c")
	for range 2 {
		if tok, err := g.Token(); err != nil || tok.AccessToken != "t2" {
			t.Fatalf("%v, %v", tok, err)
		}
	}
	if len(o.asked) != 2 || o.asked[0].Get("assertion") != "first.b.c" || o.asked[1].Get("assertion") != "second.b.c" || o.asked[1].Get("scope") != "write" {
		t.Errorf("it was asked %v", o.asked)
	}
}

func TestAKeySaysWhoWeAreAndIsNotSent(t *testing.T) {
	o := openOffice(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.refused(t, ServerConfig{Grant: GrantClient, ClientID: "us", ClientKey: key, Issuer: o.URL + "/"}, 401, "Bearer"); err != nil {
		t.Fatal(err)
	}
	got := o.asked[0]
	c := claims(got.Get("client_assertion"))
	life, _ := c["exp"].(float64)
	if c["iss"] != "us" || c["sub"] != "us" || c["aud"] != o.URL || life > float64(time.Now().Add(2*assertionLife).Unix()) || got.Get("client_secret") != "" || o.headers[0].Get("Authorization") != "" ||
		got.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || got.Get("grant_type") != "client_credentials" {
		t.Errorf("it was asked %v, which says %v", got, c)
	}
}

func TestAnIDTokenBecomesAnAssertionForOneServer(t *testing.T) {
	home, idp := openOffice(t), openOffice(t)
	idp.answer = func(_ int, w http.ResponseWriter) {
		fmt.Fprint(w, `{"access_token":"for.this.server","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:id-jag"}`)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, []byte("id.to.ken"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := ServerConfig{Grant: GrantEnterprise, ClientID: "us", ClientSecret: "hunter2", TokenFile: file, Issuer: home.URL, IDP: IDP{Issuer: idp.URL, ClientID: "me", ClientSecret: "other"}}
	if _, err := home.refused(t, c, 401, "Bearer"); err != nil {
		t.Fatal(err)
	}
	asked, got := idp.asked[0], home.asked[0]
	id, secret, _ := (&http.Request{Header: idp.headers[0]}).BasicAuth()
	if asked.Get("subject_token") != "id.to.ken" || asked.Get("audience") != home.URL || asked.Get("resource") != home.URL+"/mcp" || id != "me" || secret != "other" {
		t.Errorf("the provider was asked %v as %q", asked, id)
	}
	if got.Get("assertion") != "for.this.server" || got.Get("grant_type") != jwtBearer || strings.Contains(fmt.Sprint(got), "id.to.ken") {
		t.Errorf("it was asked %v", got)
	}
	idp.answer = func(_ int, w http.ResponseWriter) {
		fmt.Fprint(w, `{"access_token":"x","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`)
	}
	if _, err := home.refused(t, c, 401, "Bearer"); err == nil || !strings.Contains(err.Error(), "id-jag") || len(home.asked) != 1 {
		t.Errorf("another kind of token: %v", err)
	}
}

func TestTokensAreBoundToAKeyThatIsKept(t *testing.T) {
	o := openOffice(t)
	c := ServerConfig{Grant: GrantClient, ClientID: "us", ClientSecret: "s", DPoP: true}
	if _, err := o.refused(t, c, 401, "DPoP"); err == nil || !strings.Contains(err.Error(), "not bound") {
		t.Errorf("a token that anybody can use: %v", err)
	}
	if p := o.proofs[0]; p["htm"] != "POST" || p["htu"] != o.URL+"/token" || p["ath"] != nil {
		t.Errorf("it was proved %v", p)
	}
	o.asked, o.proofs = nil, nil
	o.answer = func(n int, w http.ResponseWriter) { // never content
		w.Header().Set("DPoP-Nonce", fmt.Sprint(n))
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
	}
	if _, err := o.refused(t, c, 401, "DPoP"); err == nil || !strings.Contains(err.Error(), "use_dpop_nonce") || len(o.asked) != 2 || o.proofs[1]["nonce"] != "1" || o.proofs[0]["jti"] == o.proofs[1]["jti"] {
		t.Errorf("%v, after %v", err, o.proofs)
	}

	x := New(Config{Tokens: filepath.Join(t.TempDir(), "mcp"), Servers: []ServerConfig{{Name: "a"}}, Log: quiet()})
	first, err := x.all[0].bindingKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := x.all[0].bindingKey()
	if err != nil || !again.Equal(first) {
		t.Errorf("another key after a restart: %v", err)
	}
	path := filepath.Join(x.c.Tokens, "a.key")
	if s, err := os.Stat(path); err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", s.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := x.all[0].bindingKey(); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a key that is none: %v", err)
	}
	// With the key its login is gone: it cannot be renewed, whatever its issuer calls that.
	if err := errors.Join(os.Remove(path), os.WriteFile(x.all[0].tokenFile(), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := x.all[0].bindingKey(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(x.all[0].tokenFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the login of another key is still there: %v", err)
	}
}

func TestALoginWhoseTokenIsNotBoundIsMadeAgain(t *testing.T) {
	x := New(Config{Tokens: t.TempDir(), Public: "http://127.0.0.1:1", Servers: []ServerConfig{{Name: "a", URL: "https://one.example/mcp", OAuth: true}}, Log: quiet()})
	s := x.all[0]
	k := &keeper{path: s.tokenFile(), server: s.c.URL, config: &oauth2.Config{ClientID: "id"}, source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t", TokenType: "Bearer"})}
	if _, err := k.Token(); err != nil {
		t.Fatal(err)
	}
	s.c.DPoP = true
	if _, ok := s.kept(); ok {
		t.Error("with dpop a token is used that is not bound")
	}
	k.bound, k.last = true, ""
	if _, err := k.Token(); err == nil {
		t.Error("with dpop a token is kept that is not bound")
	}
}

func TestEveryRequestOfABoundTokenHasAProofOfItsOwn(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var seen []map[string]any
	var bodies, schemes []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c := claims(r.Header.Get("DPoP"))
		seen, bodies, schemes = append(seen, c), append(bodies, string(b)), append(schemes, r.Header.Get("Authorization"))
		if c["nonce"] != "n1" {
			w.Header().Set("DPoP-Nonce", "n1")
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer web.Close()
	client := &http.Client{Transport: &proving{next: http.DefaultTransport, key: key, resource: true}}
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL+"/mcp?a=b#c", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer tok")
		resp, err := client.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
	}
	sum := sha256.Sum256([]byte("tok"))
	var once []string
	for i, c := range seen {
		if c["htu"] != web.URL+"/mcp" || c["ath"] != base64.RawURLEncoding.EncodeToString(sum[:]) || bodies[i] != "body" || schemes[i] != "DPoP tok" || slices.Contains(once, c["jti"].(string)) {
			t.Errorf("%d: %v %q %q", i, c, bodies[i], schemes[i])
		}
		once = append(once, c["jti"].(string))
	}
	if len(seen) != 3 {
		t.Errorf("%d requests for two and one nonce", len(seen))
	}
}

func TestEveryKindOfKeySigns(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"EdDSA": ed}
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		if keys[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if keys["RS256"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	for name, made := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(made)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			t.Fatal(err)
		}
		jwt, err := sign(key, map[string]any{}, map[string]any{"iss": "us"})
		if err != nil {
			t.Fatal(err)
		}
		text, mark := jwt[:strings.LastIndex(jwt, ".")], jwt[strings.LastIndex(jwt, ".")+1:]
		signature, _ := base64.RawURLEncoding.DecodeString(mark)
		header, _ := base64.RawURLEncoding.DecodeString(text[:strings.Index(text, ".")])
		_, hash, _ := algorithm(key)
		digest := []byte(text)
		if hash != 0 {
			h := hash.New()
			h.Write(digest)
			digest = h.Sum(nil)
		}
		good := false
		switch k := key.Public().(type) {
		case *ecdsa.PublicKey:
			half := len(signature) / 2
			good = half == (k.Params().BitSize+7)/8 && ecdsa.Verify(k, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
		case *rsa.PublicKey:
			good = rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
		case ed25519.PublicKey:
			good = ed25519.Verify(k, digest, signature)
		}
		if !good || string(header) != `{"alg":"`+name+`"}` || claims(jwt)["iss"] != "us" {
			t.Errorf("%s: %s", name, header)
		}
	}
}
