package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

// A Key opens the storage, as far as its role goes.
type Key struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// Env returns the key as restic and other clients of S3 read it.
func (k Key) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + k.ID, "AWS_SECRET_ACCESS_KEY=" + k.Secret}
}

// A StoreState says how to reach the storage.
type StoreState struct {
	Endpoint    string   `json:"endpoint"` // http://ADDRESS:9000
	Buckets     []string `json:"buckets"`
	Backup      Key      `json:"backup"`
	Maintenance Key      `json:"maintenance"`
	Restore     Key      `json:"restore"`
	Unlimited   Key      `json:"unlimited"`
	Control     string   `json:"control"` // a socket: s3proxy's Control
}

// A Store is a real S3 server (versitygw) with two buckets that keep old versions, behind the recording proxy. Only the
// proxy can reach the server: it listens on a socket in the lab's folder.
type Store struct {
	StoreState
	Proxy   *s3proxy.Proxy
	servers []*http.Server
}

// Repository is the address of a restic repository in one of the buckets. The rule that moves packs to Glacier Instant
// Retrieval holds for the one called "restic" in the bucket "slow".
func (s *Store) Repository(bucket, name string) string {
	return "s3:" + s.Endpoint + "/" + bucket + "/" + name
}

// rules are the lifecycle of the slow bucket: packs above 128 KiB, below which S3 transitions nothing by default, move on
// their first day; keys, locks, indexes and snapshots stay (see docs/decisions).
var rules = []s3proxy.Rule{{Bucket: "slow", Prefix: "restic/data/", LargerThan: 128 << 10, Class: "GLACIER_IR"}}

func (l *Lab) openStore(ctx context.Context) (*Store, error) {
	gateway, err := Tool("versitygw")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.dir, "s3")
	for _, d := range []string{"data", "versions", "keys"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	newKey := func(role string) Key { return Key{ID: "lab-" + role, Secret: rand.Text() + rand.Text()} }
	s := &Store{StoreState: StoreState{Backup: newKey("backup"), Maintenance: newKey("maintenance"), Restore: newKey("restore"),
		Unlimited: newKey("unlimited"), Buckets: []string{"fast", "slow"}, Control: filepath.Join(dir, "control.sock")}}
	if err := s.writeKeys(filepath.Join(dir, "keys", "users.json")); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "server.sock")
	cmd := exec.Command(gateway, "--port", socket, "--quiet", "--iam-dir", filepath.Join(dir, "keys"),
		"posix", "--versioning-dir", filepath.Join(dir, "versions"), filepath.Join(dir, "data"))
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + s.Unlimited.ID, "ROOT_SECRET_KEY=" + s.Unlimited.Secret}
	said, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := l.proc.spawn(cmd); err != nil {
		return nil, err
	}
	go cmd.Wait() //nolint:errcheck // it ends with the lab
	s.Proxy = s3proxy.New(s3proxy.Config{
		Upstream: &url.URL{Scheme: "http", Host: "storage"},
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}},
		Keys: []s3proxy.Key{
			{ID: s.Backup.ID, Role: "backup", Grants: s3proxy.Backup},
			{ID: s.Maintenance.ID, Role: "maintenance", Grants: s3proxy.Maintenance},
			{ID: s.Restore.ID, Role: "restore", Grants: s3proxy.Restore},
			{ID: s.Unlimited.ID, Role: "unlimited", Grants: s3proxy.Unlimited},
		},
		Lifecycle: rules,
	})
	if err := s.serve("tcp", net.JoinHostPort(l.slot.gateway(), "9000"), s.Proxy); err != nil {
		return nil, err
	}
	s.Endpoint = "http://" + net.JoinHostPort(l.slot.gateway(), "9000")
	if err := s.serve("unix", s.Control, s.Proxy.Control()); err != nil {
		return s, err
	}
	return s, s.makeBuckets(ctx, socket)
}

// writeKeys tells the server whose signatures are good. What each may do is the proxy's business.
func (s *Store) writeKeys(file string) error {
	accounts := map[string]any{}
	for _, k := range []Key{s.Backup, s.Maintenance, s.Restore} {
		accounts[k.ID] = map[string]any{"access": k.ID, "secret": k.Secret, "role": "admin"}
	}
	b, err := json.Marshal(map[string]any{"accessAccounts": accounts})
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

func (s *Store) serve(network, addr string, h http.Handler) error {
	listener, err := net.Listen(network, addr)
	if err != nil {
		return fmt.Errorf("serve storage: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, server)
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	return nil
}

func (s *Store) close() {
	for _, server := range s.servers {
		server.Close() //nolint:errcheck // all of it goes
	}
}

// makeBuckets waits for the server and makes the buckets, with old versions kept.
func (s *Store) makeBuckets(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start storage: %w: its log says: %s", ctx.Err(), tail(filepath.Join(filepath.Dir(socket), "server.log")))
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, b := range s.Buckets {
		if err := s.Do(ctx, s.Unlimited, http.MethodPut, "/"+b, nil, nil); err != nil {
			return fmt.Errorf("make bucket %s: %w", b, err)
		}
		versions := []byte(`<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`)
		if err := s.Do(ctx, s.Unlimited, http.MethodPut, "/"+b+"?versioning=", versions, nil); err != nil {
			return fmt.Errorf("keep versions in bucket %s: %w", b, err)
		}
	}
	return nil
}

// Do sends one signed request and copies the answer's body to out, where there is one. An answer that is not 2xx is an
// error with S3's own words.
func (s *Store) Do(ctx context.Context, k Key, method, pathAndQuery string, body []byte, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, method, s.Endpoint+pathAndQuery, bytes.NewReader(body))
	if err != nil {
		return err
	}
	s3proxy.Sign(req, k.ID, k.Secret, body, time.Now())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("%s: %s", resp.Status, said)
	}
	if out == nil {
		out = io.Discard
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

// Tool returns the path of a program that homelab-iac/test/tools/setup.sh built from the modules pinned beside it.
func Tool(name string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("find %s: %w: run homelab-iac/test/setup.sh", name, err)
	}
	return file, nil
}
