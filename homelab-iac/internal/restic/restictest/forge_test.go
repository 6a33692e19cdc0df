package restictest

import (
	"encoding/hex"
	"testing"
)

// The example of RFC 8439, section 2.5.2.
func TestPoly1305IsTheOneOfTheRFC(t *testing.T) {
	key, err := hex.DecodeString("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(poly1305([]byte("Cryptographic Forum Research Group"), key[:16], key[16:])); got != "a8061dc1305136c6c22b8baf0c0127a9" {
		t.Error(got)
	}
}
