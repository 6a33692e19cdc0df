package pipeline

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Bundle is a plan with what must still hold when it is applied. It leaves a job only sealed: a plan file holds every value of the
// state, secrets included, and artifacts are kept where guests of the project may be able to read them.
type Bundle struct {
	Commit  string    `json:"commit"`  // the plan is of this commit
	Lineage string    `json:"lineage"` // of the state; empty where there was none
	Serial  int64     `json:"serial"`  // of the state; -1 where there was none
	Made    time.Time `json:"made"`
	Plan    []byte    `json:"plan"` // Terraform's or OpenTofu's plan file
}

// Sealing is HPKE (RFC 9180) in base mode: X25519, HKDF-SHA256, AES-256-GCM. Merge requests' pipelines hold the public key only, and
// cannot open what they have sealed.
const (
	sealMagic   = "homelab plan 1\n"
	publicHead  = "hlplan-public-"
	privateHead = "hlplan-private-"
)

var (
	sealKDF  = hpke.HKDFSHA256()
	sealAEAD = hpke.AES256GCM()
)

// NewKey makes a pair of keys. Both are one line of letters GitLab can mask.
func NewKey() (public, private string, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString
	return publicHead + text(key.PublicKey().Bytes()), privateHead + text(key.Bytes()), nil
}

// Seal closes a bundle so that only the holder of the private key can open it.
func Seal(b Bundle, public string) ([]byte, error) {
	raw, err := keyBytes(public, publicHead)
	if err != nil {
		return nil, err
	}
	key, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, errors.New("seal the plan: the public key is none: make a pair with homelab terraform key")
	}
	to, err := hpke.NewDHKEMPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("seal the plan: %w", err)
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(to, sealKDF, sealAEAD, []byte(sealMagic), text)
	if err != nil {
		return nil, fmt.Errorf("seal the plan: %w", err)
	}
	return append([]byte(sealMagic), sealed...), nil
}

// Open opens what Seal has closed.
func Open(sealed []byte, private string) (Bundle, error) {
	var b Bundle
	rest, ok := bytes.CutPrefix(sealed, []byte(sealMagic))
	if !ok {
		return b, errors.New("open the plan: the file is no sealed plan")
	}
	raw, err := keyBytes(private, privateHead)
	if err != nil {
		return b, err
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return b, errors.New("open the plan: the private key is none: make a pair with homelab terraform key")
	}
	mine, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return b, fmt.Errorf("open the plan: %w", err)
	}
	text, err := hpke.Open(mine, sealKDF, sealAEAD, []byte(sealMagic), rest)
	if err != nil {
		return b, errors.New("open the plan: it was sealed with another key, or changed since: the public and the private key in the CI variables must be one pair")
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("open the plan: %w", err)
	}
	return b, nil
}

func keyBytes(text, head string) ([]byte, error) {
	raw, ok := strings.CutPrefix(strings.TrimSpace(text), head)
	key, err := base64.RawURLEncoding.DecodeString(raw)
	if !ok || err != nil || len(key) != 32 {
		return nil, fmt.Errorf("read the key: it must be %s and 43 letters: make a pair with homelab terraform key", head)
	}
	return key, nil
}
