package restictest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/internal/port"
)

// Bucket is the one that S3 makes.
const Bucket = "homelab"

// root is the owner of everything on the test's S3.
const root, rootSecret = "rootkey1", "root-secret-of-a-test"

// S3 starts a real S3 server (versitygw, versions kept) with one bucket and three keys, of which the server itself lets each do
// what the guide says: backup may add, and delete nothing but its locks; maintenance may delete, too; restore may only read.
// It returns the repository for each of them.
func S3(t testing.TB) map[string]restic.Repo {
	t.Helper()
	tool, dir := Tool(t, "versitygw"), t.TempDir()
	for _, d := range []string{"data", "iam", "versions"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", free)
	server := exec.Command(tool, "--access", root, "--secret", rootSecret, "--port", addr, "--iam-dir", dir+"/iam", "posix", "--versioning-dir", dir+"/versions", dir+"/data")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Kill(); err == nil {
			server.Wait() //nolint:errcheck // it was killed
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	must := func(status int, body string) {
		t.Helper()
		if status/100 != 2 {
			t.Fatalf("S3 answers %d: %s", status, body)
		}
	}
	must(Request(t, addr, root, rootSecret, "PUT", "/"+Bucket, "", nil))
	must(Request(t, addr, root, rootSecret, "PUT", "/"+Bucket, "versioning=", []byte(`<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`)))
	base := Repo(t)
	repos := map[string]restic.Repo{}
	var statements []any
	allow := func(name string, resource string, actions ...string) {
		statements = append(statements, map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": []string{name}}, "Action": actions, "Resource": "arn:aws:s3:::" + Bucket + resource})
	}
	for _, name := range []string{"backup", "maintenance", "restore"} {
		out, err := exec.Command(tool, "admin", "--access", root, "--secret", rootSecret, "--endpoint-url", "http://"+addr, "create-user", "--access", name, "--secret", Secret(name), "--role", "user").CombinedOutput()
		if err != nil {
			t.Fatalf("make user %s: %v\n%s", name, err, out)
		}
		r := base
		r.URL, r.Env = "s3:http://"+addr+"/"+Bucket+"/restic", []string{"AWS_ACCESS_KEY_ID=" + name, "AWS_SECRET_ACCESS_KEY=" + Secret(name)}
		r.Cache = filepath.Join(dir, "cache-"+name)
		repos[name] = r
		allow(name, "", "s3:ListBucket", "s3:GetBucketLocation")
		allow(name, "/*", "s3:GetObject")
		switch name {
		case "backup":
			allow(name, "/*", "s3:PutObject")
			allow(name, "/*/locks/*", "s3:DeleteObject")
		case "maintenance":
			allow(name, "/*", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectVersion")
			allow(name, "", "s3:ListBucketVersions")
		}
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	must(Request(t, addr, root, rootSecret, "PUT", "/"+Bucket, "policy=", policy))
	return repos
}

// Secret is the secret of one of the keys.
func Secret(name string) string { return "the-secret-of-" + name }

// Request sends one signed request (AWS Signature Version 4, the path and query already in canonical form) and returns status and
// body.
func Request(t testing.TB, addr, access, secret, method, path, query string, body []byte) (int, string) {
	t.Helper()
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	hash := fmt.Sprintf("%x", sha256.Sum256(body))
	signed := "host;x-amz-content-sha256;x-amz-date"
	canonical := strings.Join([]string{method, path, query, "host:" + addr, "x-amz-content-sha256:" + hash, "x-amz-date:" + stamp, "", signed, hash}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, fmt.Sprintf("%x", sha256.Sum256([]byte(canonical)))}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{day, "us-east-1", "s3", "aws4_request", toSign} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	target := "http://" + addr + path
	if query != "" {
		target += "?" + query
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Date", stamp)
	req.Header.Set("X-Amz-Content-Sha256", hash)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+access+"/"+scope+", SignedHeaders="+signed+", Signature="+hex.EncodeToString(key))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// FillS3 lays the repository of testdata into a bucket, with the key of r.
func FillS3(t testing.TB, r restic.Repo) {
	t.Helper()
	for name, text := range New() {
		if status, body := S3Do(t, r, "PUT", name, text); status != 200 {
			t.Fatalf("put %s: %d %s", name, status, body)
		}
	}
}

// S3Do sends one request about a file of a repository, with the key of r.
func S3Do(t testing.TB, r restic.Repo, method, name string, body []byte) (int, string) {
	t.Helper()
	rest := strings.TrimPrefix(r.URL, "s3:http://")
	at := strings.IndexByte(rest, '/')
	access := strings.TrimPrefix(r.Env[0], "AWS_ACCESS_KEY_ID=")
	secret := strings.TrimPrefix(r.Env[1], "AWS_SECRET_ACCESS_KEY=")
	return Request(t, rest[:at], access, secret, method, rest[at:]+"/"+name, "", body)
}
