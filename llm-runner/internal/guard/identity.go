package guard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	cookieName = "runner_login"
	cookieLife = 30 * 24 * time.Hour
)

// An identity says who sent a request, as far as it proves it.
type identity struct {
	program bool // with a token
	decides bool // with one that may decide in a person's place
	person  bool // with a cookie
	wrong   bool // with a token that is not ours: a mistake that no other proof makes good
}

type token struct {
	name    string
	sum     [sha256.Size]byte
	decides bool
}

func (g *Guard) identify(r *http.Request) identity {
	if g.open {
		return identity{}
	}
	if t := bearer(r.Header); t != "" {
		sum, ok, decides := sha256.Sum256([]byte(t)), 0, false
		for _, known := range g.tokens { // all of them: how long it takes tells nothing
			same := subtle.ConstantTimeCompare(sum[:], known.sum[:])
			ok |= same
			decides = decides || same == 1 && known.decides
		}
		return identity{program: ok == 1, decides: decides, wrong: ok == 0}
	}
	if g.password != nil {
		for _, c := range r.CookiesNamed(cookieName) {
			if g.cookies.valid(c.Value, time.Now()) {
				return identity{person: true}
			}
		}
	}
	return identity{}
}

// bearer returns the token that a program sends; "" none.
func bearer(h http.Header) string {
	scheme, t, ok := strings.Cut(h.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	return h.Get("X-Api-Key")
}

// A signer makes and checks cookies: "1.EXPIRY.NONCE.MAC", the expiry in seconds since 1970 UTC. A cookie is good until it
// expires, the password or the key changes, or its owner logs out. Logging out is remembered in memory: after a restart
// a copy of the cookie that somebody kept would be good again until it expires.
type signer struct {
	key []byte

	mu      *sync.Mutex
	revoked map[string]time.Time // expiry by nonce
}

// newSigner derives the key from a password too, so that a new password logs everybody out.
func newSigner(key []byte, password string) signer {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("login cookie\x00" + password))
	return signer{key: mac.Sum(nil), mu: new(sync.Mutex), revoked: map[string]time.Time{}}
}

func (s signer) issue(now time.Time) (value string, expires time.Time) {
	expires = now.Add(cookieLife)
	head := "1." + strconv.FormatInt(expires.Unix(), 10) + "." + rand.Text()
	return head + "." + s.mac(head), expires
}

func (s signer) mac(head string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(head))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s signer) valid(value string, now time.Time) bool {
	c, ok := parseCookie(value)
	if !ok || !hmac.Equal([]byte(s.mac(c.head)), []byte(c.mac)) || !now.Before(c.expires) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, gone := s.revoked[c.nonce]
	return !gone
}

// revoke makes a valid cookie worthless.
func (s signer) revoke(value string, now time.Time) {
	if !s.valid(value, now) {
		return
	}
	c, _ := parseCookie(value)
	s.mu.Lock()
	defer s.mu.Unlock()
	for nonce, expires := range s.revoked {
		if !now.Before(expires) {
			delete(s.revoked, nonce)
		}
	}
	s.revoked[c.nonce] = c.expires
}

type cookie struct {
	head    string // what the mac is of
	expires time.Time
	nonce   string
	mac     string
}

// parseCookie takes a value apart. It proves nothing.
func parseCookie(value string) (cookie, bool) {
	parts := strings.Split(value, ".")
	if len(parts) != 4 || parts[0] != "1" || len(value) > 200 {
		return cookie{}, false
	}
	seconds, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || seconds < 0 || strconv.FormatInt(seconds, 10) != parts[1] || parts[2] == "" {
		return cookie{}, false
	}
	return cookie{strings.Join(parts[:3], "."), time.Unix(seconds, 0), parts[2], parts[3]}, true
}

const keySize = 32

// loadKey reads the key at path, or makes one.
func loadKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) // never fails (crypto/rand)
	if path == "" {
		return key, nil
	}
	have, err := os.ReadFile(path)
	switch {
	case err == nil && len(have) == keySize:
		return have, nil
	case err == nil:
		return nil, fmt.Errorf("read key %s: has %d bytes instead of %d: delete it, and everybody logs in again", path, len(have), keySize)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read key: %w", err)
	}
	return key, writeKey(path, key)
}

// writeKey writes a file that is whole or not there.
func writeKey(path string, key []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}
