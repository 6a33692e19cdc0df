package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const key = "0123456789abcdef0123456789abcdef"

func TestOnlyTheKeyOpensWhatWasSealed(t *testing.T) {
	plain := []byte("the state of Terraform")
	a, err := Seal(key, plain)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Seal(key+"\n", plain)
	if err != nil || bytes.Equal(a, b) || bytes.Contains(a, plain) {
		t.Fatalf("%v: two seals of one text are alike, or the text shows", err)
	}
	for _, sealed := range [][]byte{a, b} {
		if got, err := Open(key, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q %v", got, err)
		}
	}
	if _, err := Open(strings.Replace(key, "0", "1", 1), a); !errors.Is(err, ErrKey) {
		t.Error(err)
	}
	for i := range a {
		bad := bytes.Clone(a)
		bad[i] ^= 1
		if _, err := Open(key, bad); err == nil {
			t.Errorf("byte %d can be changed", i)
		}
	}
	for n := range a {
		if _, err := Open(key, a[:n]); err == nil {
			t.Errorf("%d bytes are enough", n)
		}
	}
	if _, err := Seal("short", plain); err == nil || !strings.Contains(err.Error(), "openssl") {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	sealed, err := Seal(key, []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := Open(key, text); err == nil && string(got) != "x" { // nothing else was sealed with the key
			t.Errorf("%q is opened: %q", text, got)
		}
	})
}
