package s3proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Sign signs a request as S3 wants it (AWS Signature Version 4, one chunk, region us-east-1). The path must be one that
// needs no escapes. It is for setting up and asking in tests; programs that move data use a client of their own.
func Sign(r *http.Request, id, secret string, body []byte, now time.Time) {
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	at := now.UTC().Format("20060102T150405Z")
	day := at[:8]
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", payload)
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20") // sorted by name, as the canonical form wants it
	canonical := strings.Join([]string{r.Method, (&url.URL{Path: r.URL.Path}).EscapedPath(), query,
		"host:" + r.URL.Host, "x-amz-content-sha256:" + payload, "x-amz-date:" + at, "",
		"host;x-amz-content-sha256;x-amz-date", payload}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	scope := day + "/us-east-1/s3/aws4_request"
	key := []byte("AWS4" + secret)
	for _, part := range append(strings.Split(scope, "/"), "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+hex.EncodeToString(hash[:])) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=%x", id, scope, key))
}
