package mcpclient

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

// bindingKey is the key that a server's tokens are bound to. It is made once and kept beside the tokens: a refresh token is worth
// nothing without it.
func (s *server) bindingKey() (*ecdsa.PrivateKey, error) {
	path := filepath.Join(s.x.c.Tokens, s.c.Name+".key")
	text, err := os.ReadFile(path)
	if err == nil {
		key, err := ParseKey(text)
		if ec, ok := key.(*ecdsa.PrivateKey); err == nil && ok && ec.Curve == elliptic.P256() {
			return ec, nil
		}
		return nil, fmt.Errorf("read the key of its tokens: %s is no ECDSA key on P-256: delete it, and another is made, with another login", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key of its tokens: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(s.tokenFile()); err != nil && !errors.Is(err, fs.ErrNotExist) { // a login that is bound to a key that is gone
		return nil, fmt.Errorf("forget a login without its key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = keep(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if err != nil {
		return nil, fmt.Errorf("keep the key of its tokens: %w", err)
	}
	return key, nil
}

// proving sends with each request that needs it a proof that this program has the key which its tokens are bound to (DPoP, RFC 9449).
// It asks once more where the server wants a nonce of its own in the proof. It is safe for concurrent use.
type proving struct {
	next http.RoundTripper
	key  *ecdsa.PrivateKey
	// resource: what has a token is proved, and the token is bound to its key. Otherwise it is requests for tokens.
	resource bool

	mu     sync.Mutex
	nonces map[string]string // by origin: the one that it gave last (RFC 9449, section 8.2)
}

func (p *proving) RoundTrip(r *http.Request) (*http.Response, error) {
	token := ""
	if p.resource {
		var ok bool
		if token, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !ok {
			return p.next.RoundTrip(r)
		}
	} else if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return p.next.RoundTrip(r)
	}
	origin := r.URL.Scheme + "://" + r.URL.Host
	for again := false; ; again = true {
		p.mu.Lock()
		nonce := p.nonces[origin]
		p.mu.Unlock()
		proof, err := prove(p.key, r.Method, r.URL, token, nonce)
		if err != nil {
			return nil, fmt.Errorf("prove that a token is ours: %w", err)
		}
		c := r.Clone(r.Context())
		if again && r.GetBody != nil {
			if c.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		c.Header.Set("DPoP", proof)
		if p.resource {
			c.Header.Set("Authorization", "DPoP "+token)
		}
		resp, err := p.next.RoundTrip(c)
		if err != nil {
			return nil, err
		}
		given := resp.Header.Get("DPoP-Nonce")
		if given != "" {
			p.mu.Lock()
			if p.nonces == nil {
				p.nonces = map[string]string{}
			}
			p.nonces[origin] = given
			p.mu.Unlock()
		}
		if again || given == "" || given == nonce || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil || !p.wanted(resp) {
			return resp, nil
		}
		io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // so that the connection can be used again
		resp.Body.Close()
	}
}

// wanted says whether an answer is a refusal that wants its nonce (RFC 9449, sections 8 and 9).
func (p *proving) wanted(resp *http.Response) bool {
	const code = "use_dpop_nonce"
	if p.resource {
		all, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return false
		}
		for _, c := range all {
			if c.Scheme == "dpop" && c.Params["error"] == code {
				return true
			}
		}
		return false
	}
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), resp.Body), resp.Body}
	var said struct{ Error string }
	return err == nil && json.Unmarshal(text, &said) == nil && said.Error == code
}

// prove is a proof for one request (RFC 9449, section 4.2). token is what the request is made with, "" it asks for one.
func prove(key *ecdsa.PrivateKey, method string, u *url.URL, token, nonce string) (string, error) {
	jwk, err := public(key)
	if err != nil {
		return "", err
	}
	bare := *u
	bare.RawQuery, bare.ForceQuery, bare.Fragment, bare.RawFragment, bare.User = "", false, "", "", nil
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": bare.String(), "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return sign(key, map[string]any{"typ": "dpop+jwt", "jwk": jwk}, claims)
}
