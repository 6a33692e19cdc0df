package pass

import (
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/plan"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func signed(t *testing.T) (token string, key ed25519.PrivateKey, trusted map[string]ed25519.PublicKey, c Clock) {
	t.Helper()
	key, err := Key(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	c = Clock{Now: noon, Boot: "b1", Up: 5 * time.Hour}
	token, err = Sign(Pass{Host: "contabo", Snapshots: []string{"abc"}, Addresses: []string{"aws_x.y"}}, key, c)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err = Trusted("# machines\n" + Line("contabo", key) + " # mine\n\n")
	if err != nil {
		t.Fatal(err)
	}
	return token, key, trusted, c
}

func TestATokenCountsForAnHourByEveryClock(t *testing.T) {
	token, _, trusted, begin := signed(t)
	for name, c := range map[string]struct {
		wall, up time.Duration
		boot     string
		least    time.Duration
		want     string
	}{
		"at once":                            {0, 0, "b1", 0, ""},
		"after 59 minutes":                   {59 * time.Minute, 59 * time.Minute, "b1", 0, ""},
		"after 61 minutes":                   {61 * time.Minute, 61 * time.Minute, "b1", 0, "hour ended"},
		"on another machine":                 {30 * time.Minute, 0, "b2", 0, ""},
		"on another machine, too late":       {61 * time.Minute, 0, "b2", 0, "hour ended"},
		"on a machine that is behind":        {-time.Minute, 0, "b2", 0, ""},
		"on a machine that is far behind":    {-time.Hour, 0, "b2", 0, "of the future"},
		"clock set back":                     {10 * time.Minute, 3 * time.Hour, "b1", 0, "whatever the clock says"},
		"clock set back within the hour":     {5 * time.Minute, 50 * time.Minute, "b1", 0, "clock of this machine was set"},
		"clock set forward":                  {50 * time.Minute, 5 * time.Minute, "b1", 0, "clock of this machine was set"},
		"a plan that was made after its end": {10 * time.Minute, 0, "b2", 2 * time.Hour, "before the plan was made"},
		"a plan that was made in its hour":   {10 * time.Minute, 0, "b2", 5 * time.Minute, ""},
	} {
		clock := Clock{Now: begin.Now.Add(c.wall), Boot: c.boot, Up: begin.Up + c.up}
		if c.least != 0 {
			clock.Least = begin.Now.Add(c.least)
		}
		p, err := Read(" "+token+"\n", trusted, clock)
		if c.want == "" && (err != nil || p.Host != "contabo" || p.Snapshots[0] != "abc") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAChangedTokenIsForged(t *testing.T) {
	token, key, trusted, c := signed(t)
	other, err := Key(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Sign(Pass{Host: "contabo", Snapshots: []string{"abc"}}, other, c)
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := Sign(Pass{Host: "davas", Snapshots: []string{"abc"}}, key, c)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	renamed := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(body), "aws_x.y", "aws_x.z", 1))) + "." + parts[2]
	bare := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, body))
	for name, text := range map[string]string{
		"nothing": "", "half": token[:len(token)/2], "another address": renamed, "somebody else's key": foreign, "an unknown machine": unknown,
		"a signature without the context": bare, "another version": "homelab2." + parts[1] + "." + parts[2], "a third part": token + ".x",
	} {
		if _, err := Read(text, trusted, c); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
	for i := len(prefix); i < len(token); i += 7 { // any letter changed
		b := []byte(token)
		b[i] ^= 1
		if _, err := Read(string(b), trusted, c); err == nil {
			t.Errorf("letter %d can be changed", i)
		}
	}
	if _, err := Sign(Pass{Host: "contabo"}, key, c); err == nil {
		t.Error("a token without a snapshot was made")
	}
}

func TestATokenCoversItsMachineAndWhatWasTyped(t *testing.T) {
	p := Pass{Host: "contabo", Addresses: []string{"aws_x.y"}}
	for _, c := range []struct {
		f    plan.Finding
		want bool
	}{
		{plan.Finding{Address: "vps", Cover: plan.ByHost, Host: "contabo"}, true},
		{plan.Finding{Address: "vps", Cover: plan.ByHost, Host: "davas"}, false},
		{plan.Finding{Address: "aws_x.y", Cover: plan.ByAddress}, true},
		{plan.Finding{Address: "aws_x.y (deposed)", Cover: plan.ByAddress}, true},
		{plan.Finding{Address: "aws_x.z", Cover: plan.ByAddress, Host: "contabo"}, false},
		{plan.Finding{Address: "aws_x.y", Cover: plan.ByNothing, Host: "contabo"}, false},
	} {
		if p.Covers(c.f) != c.want {
			t.Errorf("%+v: %v", c.f, !c.want)
		}
	}
}

func TestTheKeyIsMadeOnceAndStaysSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "key")
	keys := make([]string, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			if k, err := Key(file); err == nil {
				keys[i] = Line("x", k)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k == "" || k != keys[0] {
			t.Errorf("%q and %q", k, keys[0])
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Key(file); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	for _, text := range []string{"a", "a b c", "a !!!", "a AAAA", keys[0] + "\n" + keys[0]} {
		if _, err := Trusted(text); err == nil {
			t.Errorf("%q is a file of keys", text)
		}
	}
}

func FuzzRead(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	c := Clock{Now: noon}
	token, err := Sign(Pass{Host: "h", Snapshots: []string{"a"}}, key, c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("homelab1.e30.AA")
	trusted := map[string]ed25519.PublicKey{"h": key.Public().(ed25519.PublicKey)}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Read(text, trusted, c)
		if err == nil && (p.Host != "h" || len(p.Snapshots) != 1 || p.Snapshots[0] != "a" || p.Expires.Sub(p.Issued) != Life) { // nobody else has the key
			t.Errorf("%q is believed: %+v", text, p)
		}
	})
}
