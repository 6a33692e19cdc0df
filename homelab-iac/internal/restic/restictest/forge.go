package restictest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The repository of testdata was made by restic init with the password of Repo. Its key was then written anew with the cheapest
// parameters that scrypt has (N=2), as restic's own tests do: to open it takes 20 ms instead of 350. Nothing else about it is
// special, and the proofs that make a repository themselves show that.
//
//go:embed testdata/repo
var made embed.FS

// New is the files of an empty repository, by name.
func New() map[string][]byte {
	files := map[string][]byte{}
	fs.WalkDir(made, "testdata/repo", func(p string, d fs.DirEntry, err error) error { //nolint:errcheck // embedded files can be read
		if err == nil && !d.IsDir() {
			files[p[len("testdata/repo/"):]], _ = made.ReadFile(p)
		}
		return err
	})
	return files
}

// The master key of that repository, with which Seal writes what an intruder, another machine or a wrong clock would.
var encrypt, macK, macR = key("hWGPvED8xVrV9PQnCjdCW+IukmRuvanQWr2x/K066aQ="), key("TTHnkaz979pKM9tJywUJqg=="), key("Q008dA2saOX3iVQH7j51KA==")

func key(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

// Seal encrypts a file of the repository (restic's doc/design.rst: AES-256 in counter mode, then Poly1305-AES) and returns it with the
// name that it must have.
func Seal(plain []byte) (name string, file []byte) {
	iv := make([]byte, 16)
	rand.Read(iv)
	block, _ := aes.NewCipher(encrypt) //nolint:errcheck // the key has the right length
	text := make([]byte, len(plain))
	cipher.NewCTR(block, iv).XORKeyStream(text, plain)
	s := make([]byte, 16)
	block, _ = aes.NewCipher(macK) //nolint:errcheck // the same
	block.Encrypt(s, iv)
	file = append(append(iv, text...), poly1305(text, macR, s)...)
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:]), file
}

// poly1305 is the authenticator of RFC 8439, section 2.5, with numbers of any size: it is slow, and nothing depends on its secrets.
func poly1305(text, r, s []byte) []byte {
	number := func(b []byte) *big.Int { // little-endian
		turned := make([]byte, len(b))
		for i := range b {
			turned[len(b)-1-i] = b[i]
		}
		return new(big.Int).SetBytes(turned)
	}
	r = append([]byte{}, r...)
	for _, i := range []int{3, 7, 11, 15} {
		r[i] &= 15
	}
	for _, i := range []int{4, 8, 12} {
		r[i] &= 252
	}
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	factor, sum := number(r), new(big.Int)
	for len(text) > 0 {
		n := min(16, len(text))
		sum.Add(sum, number(append(append([]byte{}, text[:n]...), 1)))
		sum.Mul(sum, factor).Mod(sum, p)
		text = text[n:]
	}
	sum.Add(sum, number(s))
	var out [16]byte
	words := sum.Bits()
	for i := range min(2, len(words)) {
		binary.LittleEndian.PutUint64(out[8*i:], uint64(words[i]))
	}
	return out[:]
}

// A Lock that some restic somewhere is said to hold.
type Lock struct {
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	PID       int       `json:"pid"`
	UID       int       `json:"uid"`
	GID       int       `json:"gid"`
}

// A Snapshot as somebody could write one.
type Snapshot struct {
	Time     time.Time `json:"time"`
	Tree     string    `json:"tree"`
	Paths    []string  `json:"paths"`
	Hostname string    `json:"hostname"`
	Username string    `json:"username"`
	Tags     []string  `json:"tags"`
}

// Put writes a value as a file of a repository's folder: "locks", "snapshots".
func Put(t testing.TB, repository, kind string, v any) (name string) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	name, file := Seal(text)
	if err := os.WriteFile(filepath.Join(repository, kind, name), file, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
