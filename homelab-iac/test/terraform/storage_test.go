//go:build prove

package terraform

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// rendered is what module backup_bucket hands out of a bucket's settings.
type rendered struct {
	Bucket      string            `json:"bucket"`
	Repository  string            `json:"repository"`
	Policy      string            `json:"policy"`
	KeyPolicies map[string]string `json:"key_policies"`
	Versioning  string            `json:"versioning"`
	LockMode    string            `json:"lock_mode"`
	LockDays    int               `json:"lock_days"`
}

const admin, adminSecret = "the-administrator", "the-secret-of-the-administrator"

// A storage is one S3 server (versitygw) on two ports: one speaks TLS, the other plain HTTP.
type storage struct {
	t          *testing.T
	dir        string
	tls, plain string
	ca         string
	client     *http.Client
}

func startStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{t: t, dir: t.TempDir()}
	for _, d := range []string{"data", "iam", "versions"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cert, key, pool := s.certificate()
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	s.plain = s.serve()
	s.tls = s.serve("--cert", cert, "--key", key)
	return s
}

func (s *storage) certificate() (cert, key string, pool *x509.CertPool) {
	s.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ca, key = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(s.ca, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		s.t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return s.ca, key, pool
}

func (s *storage) serve(flags ...string) string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	args := append([]string{"--access", admin, "--secret", adminSecret, "--port", addr, "--quiet", "--iam-dir", s.dir + "/iam"}, flags...)
	cmd := exec.Command(restictest.Tool(s.t, "versitygw"), append(args, "posix", "--versioning-dir", s.dir+"/versions", s.dir+"/data")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := cmd.Process.Kill(); err == nil {
			cmd.Wait() //nolint:errcheck // it was killed
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		} else if time.Now().After(end) {
			s.t.Fatal(err)
		}
	}
}

// send signs a request (AWS Signature Version 4) and returns status and body. query is in canonical form.
func (s *storage) send(base, access, secret, method, path, query, body string, headers map[string]string) (int, string) {
	s.t.Helper()
	scheme := "https"
	if base == s.plain {
		scheme = "http"
	}
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	sum := sha256.Sum256([]byte(body))
	all := map[string]string{"host": base, "x-amz-content-sha256": hex.EncodeToString(sum[:]), "x-amz-date": stamp}
	for k, v := range headers {
		all[k] = v
	}
	names := []string{}
	for k := range all {
		names = append(names, k)
	}
	slices.Sort(names)
	lines := ""
	for _, k := range names {
		lines += k + ":" + all[k] + "\n"
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{method, path, query, lines, signed, all["x-amz-content-sha256"]}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	hash := sha256.Sum256([]byte(canonical))
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	key := mac(mac(mac(mac([]byte("AWS4"+secret), day), "us-east-1"), "s3"), "aws4_request")
	signature := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(hash[:])}, "\n")))
	u := &url.URL{Scheme: scheme, Host: base, Path: path, RawQuery: query}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader([]byte(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range all {
		if k != "host" {
			req.Header.Set(k, v)
		}
	}
	if body != "" {
		digest := md5.Sum([]byte(body))
		req.Header.Set("Content-MD5", base64.StdEncoding.EncodeToString(digest[:]))
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", access, scope, signed, signature))
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// admins sends as the administrator, and wants it done.
func (s *storage) admins(method, path, query, body string, headers map[string]string) string {
	s.t.Helper()
	status, text := s.send(s.tls, admin, adminSecret, method, path, query, body, headers)
	if status/100 != 2 {
		s.t.Fatalf("%s %s?%s: %d %s", method, path, query, status, text)
	}
	return text
}

func secretOf(key string) string { return "the-secret-of-" + key }

// apply gives the bucket the settings that Terraform rendered, as far as this server knows them. It knows no policies of users and no
// condition on who asks, so the keys' policies are written into the bucket's, each with its key as the principal, and what is denied to
// everybody but the administrator's role is denied to the four keys. Lifecycle, encryption and the block of public access it does not
// know: those are only asserted in the configuration's own tests.
func (s *storage) apply(r rendered) {
	s.t.Helper()
	s.admins("PUT", "/"+r.Bucket, "", "", map[string]string{"x-amz-bucket-object-lock-enabled": "true"})
	s.admins("PUT", "/"+r.Bucket, "versioning=", `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>`+r.Versioning+`</Status></VersioningConfiguration>`, nil)
	s.admins("PUT", "/"+r.Bucket, "object-lock=", fmt.Sprintf(`<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>%s</Mode><Days>%d</Days></DefaultRetention></Rule></ObjectLockConfiguration>`, r.LockMode, r.LockDays), nil)
	var keys []string
	var statements []map[string]any
	parse := func(policy string) []map[string]any {
		var doc struct{ Statement []map[string]any }
		if err := json.Unmarshal([]byte(policy), &doc); err != nil {
			s.t.Fatal(err)
		}
		return doc.Statement
	}
	for key, policy := range r.KeyPolicies {
		keys = append(keys, key)
		for _, st := range parse(policy) {
			st["Sid"], st["Principal"] = key+fmt.Sprint(st["Sid"]), map[string]any{"AWS": []string{key}}
			statements = append(statements, st)
		}
	}
	translated := 0
	for _, st := range parse(r.Policy) {
		if st["Effect"] != "Deny" {
			s.t.Fatalf("the bucket's policy allows something: %v", st)
		}
		if condition, ok := st["Condition"].(map[string]any); ok && condition["ArnNotLike"] != nil {
			delete(st, "Condition")
			st["Principal"] = map[string]any{"AWS": keys}
			translated++
		}
		statements = append(statements, st)
	}
	if translated != 2 {
		s.t.Errorf("%d statements are translated, and two are meant", translated)
	}
	for _, key := range keys {
		out, err := exec.Command(restictest.Tool(s.t, "versitygw"), "admin", "--access", admin, "--secret", adminSecret, "--endpoint-url", "http://"+s.plain, "create-user", "--access", key, "--secret", secretOf(key), "--role", "user").CombinedOutput()
		if err != nil {
			s.t.Fatalf("make user %s: %v\n%s", key, err, out)
		}
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		s.t.Fatal(err)
	}
	s.admins("PUT", "/"+r.Bucket, "policy=", string(policy), nil)
}

func TestTheSettingsOfTheBucketsHoldOnARealServer(t *testing.T) {
	w := newWorkspace(t)
	w.terraform("apply", "-input=false", "-no-color", "-auto-approve")
	var all map[string]rendered
	if err := json.Unmarshal([]byte(w.terraform("output", "-json", "rendered")), &all); err != nil {
		t.Fatal(err)
	}
	r := all["fast"]
	s := startStorage(t)
	s.apply(r)

	base := restictest.Repo(t)
	repo := func(key string) restic.Repo {
		k := base
		k.URL, k.Cache = "s3:https://"+s.tls+"/"+r.Bucket+"/"+r.Repository, filepath.Join(s.dir, "cache-"+key)
		k.Env = []string{"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secretOf(key), "RESTIC_CACERT=" + s.ca}
		return k
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	source := t.TempDir()
	restictest.Write(t, source, map[string]string{"a": strings.Repeat("one", 1000)})
	backup := func() restic.Summary {
		t.Helper()
		sum, err := repo("backup").Backup(t.Context(), restic.Backup{Host: "h", Paths: []string{source}}, nil)
		must(err)
		return sum
	}
	must(repo("backup").Init(t.Context()))
	first := backup()
	restictest.Write(t, source, map[string]string{"a": strings.Repeat("two", 1000)})
	second := backup()
	forget := func(key, id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second) // restic would try for minutes
		defer cancel()
		_, err := repo(key).Run(ctx, []string{"forget", "--prune", id}, nil)
		return err
	}
	if forget("backup", first.Snapshot) == nil {
		t.Error("the backup key forgets")
	}
	if list, err := repo("restore").Snapshots(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("after the backup key tried to forget: %d snapshots, %v", len(list), err)
	}
	must(forget("maintenance", first.Snapshot))
	target := t.TempDir()
	_, err := repo("restore").Run(t.Context(), restic.Restore{Snapshot: second.Snapshot, Path: source, Target: target}.Args(), nil)
	must(err)

	// What is in the bucket, old versions and all.
	var versions struct {
		Version, DeleteMarker []struct{ Key, VersionId string }
	}
	if err := xml.Unmarshal([]byte(s.admins("GET", "/"+r.Bucket, "versions=", "", nil)), &versions); err != nil {
		t.Fatal(err)
	}
	config := "/" + r.Bucket + "/" + r.Repository + "/config"
	id, forgotten := "", false
	for _, v := range versions.Version {
		if v.Key == r.Repository+"/config" {
			id = v.VersionId
		}
		forgotten = forgotten || v.Key == r.Repository+"/snapshots/"+first.Snapshot
	}
	if id == "" || !forgotten || len(versions.DeleteMarker) == 0 {
		t.Fatalf("version %q of the configuration; what maintenance forgot is there: %v; %d markers", id, forgotten, len(versions.DeleteMarker))
	}
	const suspended = `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Suspended</Status></VersioningConfiguration>`
	snapshot := "/" + r.Bucket + "/" + r.Repository + "/snapshots/" + second.Snapshot
	for _, c := range []struct {
		what                string
		on, key             string
		method, path, query string
		body                string
		headers             map[string]string
		ok                  bool
	}{
		{"the backup key deletes a snapshot", s.tls, "backup", "DELETE", snapshot, "", "", nil, false},
		{"the backup key suspends versions", s.tls, "backup", "PUT", "/" + r.Bucket, "versioning=", suspended, nil, false},
		{"the backup key changes the policy", s.tls, "backup", "PUT", "/" + r.Bucket, "policy=", `{"Version":"2012-10-17","Statement":[]}`, nil, false},
		{"the backup key deletes a version", s.tls, "backup", "DELETE", config, "versionId=" + id, "", nil, false},
		{"the maintenance key deletes a version", s.tls, "maintenance", "DELETE", config, "versionId=" + id, "", nil, false},
		{"the maintenance key lifts a lock", s.tls, "maintenance", "DELETE", config, "versionId=" + id, "", map[string]string{"x-amz-bypass-governance-retention": "true"}, false},
		{"the maintenance key suspends versions", s.tls, "maintenance", "PUT", "/" + r.Bucket, "versioning=", suspended, nil, false},
		{"the administrator deletes a locked version in passing", s.tls, admin, "DELETE", config, "versionId=" + id, "", nil, false},
		{"the restore key writes", s.tls, "restore", "PUT", config, "", "x", nil, false},
		{"the restore key deletes", s.tls, "restore", "DELETE", config, "", "", nil, false},
		{"the restore key reads", s.tls, "restore", "GET", config, "", "", nil, true},
		{"the administrator reads over plain HTTP, which this server lets him", s.plain, admin, "GET", "/" + r.Bucket, "versioning=", "", nil, true},
		{"the restore key reads over plain HTTP", s.plain, "restore", "GET", config, "", "", nil, false},
		{"the backup key writes over plain HTTP", s.plain, "backup", "PUT", "/" + r.Bucket + "/" + r.Repository + "/x", "", "x", nil, false},
		{"the plan key reads the versioning", s.tls, "plan", "GET", "/" + r.Bucket, "versioning=", "", nil, true},
		{"the plan key reads the lock", s.tls, "plan", "GET", "/" + r.Bucket, "object-lock=", "", nil, true},
		{"the plan key reads an object", s.tls, "plan", "GET", config, "", "", nil, false},
		{"a key writes outside of the repository", s.tls, "backup", "PUT", "/" + r.Bucket + "/elsewhere", "", "x", nil, false},
	} {
		secret := secretOf(c.key)
		if c.key == admin {
			secret = adminSecret
		}
		status, text := s.send(c.on, c.key, secret, c.method, c.path, c.query, c.body, c.headers)
		if c.ok != (status/100 == 2) || !c.ok && (status != http.StatusForbidden || !strings.Contains(text, "<Code>AccessDenied</Code>")) {
			t.Errorf("%s: %d %.300s", c.what, status, text)
		}
	}
	if lock := s.admins("GET", "/"+r.Bucket, "object-lock=", "", nil); !strings.Contains(lock, fmt.Sprintf("<Days>%d</Days>", r.LockDays)) {
		t.Errorf("the lock: %s", lock)
	}
}
