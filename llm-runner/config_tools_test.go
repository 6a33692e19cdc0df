package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoginsOfMCPServersSayWhatIsWrong(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string][]byte{"good.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "bad.pem": []byte("hunter2-hunter2")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("A_SECRET", "from-the-environment")
	const who = "oauth: true, client_id: us, issuer: https://login.example, "
	for server, want := range map[string]string{
		who + "grant: client_credentials, client_secret: env:A_SECRET":                           "",
		who + "grant: client_credentials, client_key: file:DIR/good.pem, dpop: true":             "",
		who + "grant: jwt_bearer, token_file: /run/token":                                        "",
		who + "grant: enterprise, token_file: ~/id, idp: https://idp.example, idp_client_id: me": "",
		who + "dpop: true":      "",
		who + "grant: password": `a.grant: "password" is not known`,
		who + "grant: client_credentials, client_key: file:DIR/bad.pem":                               "a.client_key: is no private key in PEM",
		who + "grant: client_credentials, client_secret: env:A_SECRET, client_key: file:DIR/good.pem": "has both client_secret and client_key",
		who + "grant: client_credentials":                                                             "a.client_secret: is missing",
		who + "grant: client_credentials, client_key: env:NOBODY_SETS_IT":                             "", // a warning: it may be there at the next start
		who + "grant: jwt_bearer":                                                                     "a.token_file: is missing",
		who + "grant: enterprise, token_file: x":                                                      "a.idp: is missing",
		who + "token_file: x":                                                                         "a.token_file: is for grant: jwt_bearer or enterprise",
		who + "grant: client_credentials, client_metadata: https://a.example/x":                       "a.client_metadata: is for logins by a person",
		"oauth: true, grant: client_credentials":                                                      "a.issuer: is missing",
		"oauth: true, client_id: us, issuer: http://login.example":                                    "a.issuer: \"http://login.example\" is not the https URL",
		"dpop: true": "a.dpop: is for oauth: true",
		"oauth: true, issuer: https://login.home": "",
		"issuer: https://login.example":           "a.issuer: is for oauth: true",
	} {
		_, err := load(t, strings.ReplaceAll("mcp: {servers: {a: {url: https://a.example/mcp, "+server+"}}}", "DIR", dir))
		switch {
		case err == nil && want != "", err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v; want %q", server, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("a secret stands in the error: %v", err)
		}
	}
}
