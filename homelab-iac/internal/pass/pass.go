// Package pass makes and reads the token that precheck gives out: a signed statement that twelve things were looked at, by whom a machine
// may be wiped for an hour. What is destructive asks for it; nobody keeps a list of tokens.
package pass

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"home.arpa/lab/homelab-iac/internal/plan"
)

// Life is how long a token counts.
const Life = time.Hour

// Slack is how far two clocks may differ.
const Slack = 2 * time.Minute

// A Pass is what a token says.
type Pass struct {
	Host      string        `json:"host"`      // the machine that may be wiped
	Snapshots []string      `json:"snapshots"` // what it would be restored from: IDs of restic
	Addresses []string      `json:"addresses"` // addresses of a plan that a person typed besides
	Issued    time.Time     `json:"issued"`    // UTC
	Expires   time.Time     `json:"expires"`
	Boot      string        `json:"boot"` // of the machine that made it,
	Up        time.Duration `json:"up"`   // and how long that had been up: wall clocks can be set back, this one cannot
	Nonce     string        `json:"nonce"`
}

// A Clock is what time it is, in the three ways there are.
type Clock struct {
	Now   time.Time
	Boot  string        // which boot of which machine; empty: unknown
	Up    time.Duration // since that boot, sleep included
	Least time.Time     // a time that has surely passed: a plan's own; zero: none is known
}

// ReadClock asks this machine.
func ReadClock() Clock {
	c := Clock{Now: time.Now()}
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
			c.Boot, c.Up = strings.TrimSpace(string(id)), time.Duration(ts.Nano())
		}
	}
	return c
}

const (
	prefix  = "homelab1."
	context = "homelab precheck token 1\n" // so that a signature of something else is none of a token
)

// Sign makes the token. Issued, Expires and the clock's fields are set here.
func Sign(p Pass, key ed25519.PrivateKey, c Clock) (string, error) {
	if p.Host == "" || len(p.Snapshots) == 0 {
		return "", errors.New("sign token: it names no machine, or no snapshot to restore it from")
	}
	p.Issued = c.Now.UTC().Truncate(time.Second)
	p.Expires, p.Boot, p.Up, p.Nonce = p.Issued.Add(Life), c.Boot, c.Up, rand.Text()
	text, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	b := base64.RawURLEncoding
	return prefix + b.EncodeToString(text) + "." + b.EncodeToString(ed25519.Sign(key, append([]byte(context), text...))), nil
}

// ErrForged means that a token was not made by the machine that it names, or was changed since.
var ErrForged = errors.New("it is not signed by the key of the machine that it names: run homelab precheck again, and compare homelab precheck key with the file of trusted keys")

// Read reads a token and believes it only where its machine's key signed it and its hour is not over by any clock.
func Read(token string, trusted map[string]ed25519.PublicKey, c Clock) (Pass, error) {
	p, err := read(strings.TrimSpace(token), trusted)
	if err == nil {
		err = p.inTime(c)
	}
	if err != nil {
		return Pass{}, fmt.Errorf("read token: %w", err)
	}
	return p, nil
}

func read(token string, trusted map[string]ed25519.PublicKey) (p Pass, err error) {
	rest, ok := strings.CutPrefix(token, prefix)
	body, signature, two := strings.Cut(rest, ".")
	if !ok || !two || len(token) > 64<<10 {
		return p, errors.New("it is not a token: copy it again, whole; it begins with " + prefix)
	}
	b := base64.RawURLEncoding.Strict()
	text, err := b.DecodeString(body)
	if err != nil {
		return p, errors.New("it is damaged: copy it again, whole")
	}
	sig, err := b.DecodeString(signature)
	if err != nil {
		return p, errors.New("it is damaged: copy it again, whole")
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, ErrForged
	}
	key, known := trusted[p.Host]
	if !known {
		return p, fmt.Errorf("the key of %.60q is not among those that are trusted here: add what homelab precheck key prints there", p.Host)
	}
	if !ed25519.Verify(key, append([]byte(context), text...), sig) {
		return p, ErrForged
	}
	return p, nil
}

// inTime says whether the hour is over, and whether somebody turned a clock.
func (p Pass) inTime(c Clock) error {
	const again = "run homelab precheck again"
	switch {
	case p.Expires.Sub(p.Issued) > Life || p.Issued.IsZero():
		return errors.New("it claims to count for longer than an hour: " + again)
	case p.Issued.After(c.Now.Add(Slack)):
		return fmt.Errorf("it is of the future (%s): one of the clocks is off: set it right, and %s", p.Issued.Format(time.RFC3339), again)
	case c.Now.After(p.Expires):
		return fmt.Errorf("its hour ended at %s: %s", p.Expires.Format(time.RFC3339), again)
	case c.Least.After(p.Expires.Add(Slack)):
		return fmt.Errorf("its hour ended before the plan was made, at %s, whatever the clock says: %s", c.Least.Format(time.RFC3339), again)
	}
	if c.Boot == "" || c.Boot != p.Boot {
		return nil
	}
	passed := c.Up - p.Up
	switch {
	case passed > Life:
		return fmt.Errorf("%s have passed since, whatever the clock says: %s", passed.Round(time.Minute), again)
	case passed < -Slack || (passed-c.Now.Sub(p.Issued)).Abs() > Slack:
		return errors.New("the clock of this machine was set since: set it right, and " + again)
	}
	return nil
}

// Covers says whether the token lets a finding pass.
func (p Pass) Covers(f plan.Finding) bool {
	address := strings.TrimSuffix(f.Address, " (deposed)")
	switch f.Cover {
	case plan.ByHost:
		return f.Host == p.Host || slices.Contains(p.Addresses, address)
	case plan.ByAddress:
		return slices.Contains(p.Addresses, address)
	}
	return false
}

// Key reads a machine's signing key, or makes it where there is none.
func Key(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(file); err != nil {
			return nil, fmt.Errorf("make signing key: %w", err)
		}
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read signing key %s: it is damaged: remove it, run homelab precheck key, and trust the new one", file)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// create makes a key that appears whole or not at all; where two make one, the first stays.
func create(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) //nolint:errcheck // it never fails (crypto/rand, Go 1.24)
	f, err := os.CreateTemp(filepath.Dir(file), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(seed) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Line is a public key as it stands in a file of trusted keys.
func Line(host string, key ed25519.PrivateKey) string {
	return host + " " + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// Trusted reads a file of trusted keys: a machine's name and its key a line, # before a comment.
func Trusted(text string) (map[string]ed25519.PublicKey, error) {
	keys := map[string]ed25519.PublicKey{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, fmt.Errorf("read trusted keys: line %d is not a machine's name and its key: copy what homelab precheck key prints", n)
		}
		raw, err := base64.StdEncoding.DecodeString(words[1])
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("read trusted keys: line %d: the key of %s is damaged: copy what homelab precheck key prints", n, words[0])
		}
		if _, twice := keys[words[0]]; twice {
			return nil, fmt.Errorf("read trusted keys: line %d: %s has two keys: keep the newer one", n, words[0])
		}
		keys[words[0]] = raw
	}
	return keys, nil
}
