// Package seal encrypts files that leave the machine outside of a restic repository, with a key that is in the break-glass kit.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

// header begins every sealed file; it is authenticated, too.
const header = "homelab-sealed-1\n"

const saltBytes = 32

// ErrKey means that the key is not the one that sealed the file, or the file was changed.
var ErrKey = errors.New("it was sealed with another key, or is damaged: take the key from the break-glass kit")

// Seal encrypts with AES-256-GCM. Each file has a key of its own, derived from key by HKDF-SHA256 and a random salt, so that one key seals
// any number of files. The key is a secret of 32 characters or more, as openssl rand -base64 32 makes them.
func Seal(key string, plain []byte) ([]byte, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) //nolint:errcheck // it never fails (crypto/rand, Go 1.24)
	box, err := boxFor(key, salt)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	out := append([]byte(header), salt...)
	return box.Seal(out, make([]byte, box.NonceSize()), plain, []byte(header)), nil // the key is used once, so its nonce may be zero
}

// Open decrypts what Seal encrypted.
func Open(key string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(header))
	if !ok || len(rest) < saltBytes {
		return nil, errors.New("open: it is not a sealed file: it does not begin with homelab-sealed-1")
	}
	box, err := boxFor(key, rest[:saltBytes])
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	plain, err := box.Open(nil, make([]byte, box.NonceSize()), rest[saltBytes:], []byte(header))
	if err != nil {
		return nil, fmt.Errorf("open: %w", ErrKey)
	}
	return plain, nil
}

func boxFor(key string, salt []byte) (cipher.AEAD, error) {
	key = strings.TrimSpace(key)
	if len(key) < 32 {
		return nil, errors.New("the key has fewer than 32 characters: make one with openssl rand -base64 32")
	}
	own, err := hkdf.Key(sha256.New, []byte(key), salt, header, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
