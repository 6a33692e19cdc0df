package lab

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Tailnet is a network of Tailscale's own clients with headscale as control server, on the lab's network and nowhere else. Machines have
// tailscale and tailscaled, and trust the lab's authority; they are not logged in. In the place of Tailscale's API stands one that knows the
// two calls by which an OAuth client mints a key.
type Tailnet struct {
	TailnetState

	lab    *Lab
	dir    string
	tools  string // the folder with headscale, tailscale, tailscaled and its unit
	server *http.Server

	mu    sync.Mutex
	asked []MintRequest
}

// TailnetState is what playbooks need to know of it.
type TailnetState struct {
	URL    string `json:"url"`    // the control server
	API    string `json:"api"`    // where the OAuth client mints keys
	CA     string `json:"ca"`     // a file with the authority of both
	Secret string `json:"secret"` // of the OAuth client
}

// A MintRequest is one key that was asked for.
type MintRequest struct {
	Tags      []string
	Reusable  bool
	Ephemeral bool
	Seconds   int // how long it is good for
}

// ControlPort is where headscale listens, and APIPort where keys are minted.
const (
	ControlPort = "8443"
	APIPort     = "8444"
)

func (l *Lab) openTailnet(ctx context.Context) (*Tailnet, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	n := &Tailnet{lab: l, dir: filepath.Join(l.dir, "tailnet"), tools: filepath.Join(cache, "tailnet")}
	if _, err := os.Stat(filepath.Join(n.tools, "ready")); err != nil {
		return nil, fmt.Errorf("open a tailnet: %w: run homelab-iac/test/tools/tailnet/setup.sh", err)
	}
	at := l.slot.gateway()
	n.URL, n.API = "https://"+net.JoinHostPort(at, ControlPort), "https://"+net.JoinHostPort(at, APIPort)
	n.CA, n.Secret = filepath.Join(n.dir, "ca.pem"), "tskey-client-lab-"+rand.Text()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	pair, err := n.certificate(at)
	if err != nil {
		return nil, fmt.Errorf("open a tailnet: %w", err)
	}
	if err := n.control(ctx, at); err != nil {
		return nil, fmt.Errorf("open a tailnet: %w", err)
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(at, APIPort), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return nil, fmt.Errorf("open a tailnet: %w", err)
	}
	n.server = &http.Server{Handler: n.api(), ReadHeaderTimeout: 10 * time.Second}
	go n.server.Serve(listener) //nolint:errcheck // it ends when it is closed
	return n, nil
}

func (n *Tailnet) close() {
	if n != nil && n.server != nil {
		n.server.Close() //nolint:errcheck // all of it goes
	}
}

// certificate makes an authority and a certificate of it for an address.
func (n *Tailnet) certificate(address string) (tls.Certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "homelab lab authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: address}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.ParseIP(address)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	err = errors.Join(
		writeFile(n.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o644),
		writeFile(filepath.Join(n.dir, "server.pem"), certPEM, 0o644),
		writeFile(filepath.Join(n.dir, "server.key"), keyPEM, 0o600))
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// control starts headscale and returns when it answers. It finds peers for each other by its own relay and STUN; nothing of it calls out.
func (n *Tailnet) control(ctx context.Context, at string) error {
	config := map[string]any{
		"server_url": n.URL, "listen_addr": net.JoinHostPort(at, ControlPort), "metrics_listen_addr": "", "grpc_listen_addr": "127.0.0.1:0",
		"noise": map[string]any{"private_key_path": n.dir + "/noise.key"}, "prefixes": map[string]any{"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
		"derp": map[string]any{"urls": []string{}, "paths": []string{}, "auto_update_enabled": false, "server": map[string]any{
			"enabled": true, "region_id": 999, "region_code": "lab", "region_name": "lab", "stun_listen_addr": net.JoinHostPort(at, "3478"),
			"private_key_path": n.dir + "/derp.key", "automatically_add_embedded_derp_region": true, "ipv4": at}},
		"disable_check_updates": true, "ephemeral_node_inactivity_timeout": "30m",
		"database":      map[string]any{"type": "sqlite", "sqlite": map[string]any{"path": n.dir + "/db.sqlite", "write_ahead_log": true}},
		"tls_cert_path": n.dir + "/server.pem", "tls_key_path": n.dir + "/server.key",
		"log": map[string]any{"format": "text", "level": "info"}, "policy": map[string]any{"mode": "file", "path": n.dir + "/policy.hujson"},
		"dns":         map[string]any{"magic_dns": true, "base_domain": "tailnet.lab", "override_local_dns": false, "nameservers": map[string]any{"global": []string{}}},
		"unix_socket": n.dir + "/headscale.sock", "unix_socket_permission": "0700", "logtail": map[string]any{"enabled": false}}
	text, err := json.MarshalIndent(config, "", " ") // JSON is YAML
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(n.dir, "headscale.log"))
	if err == nil {
		err = errors.Join(writeFile(n.dir+"/config.yaml", text, 0o600), writeFile(n.dir+"/policy.hujson", []byte(n.lab.options.Tailnet), 0o600))
	}
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(n.tools, "headscale"), "--config", n.dir+"/config.yaml", "serve")
	cmd.Stdout, cmd.Stderr = log, log
	if err := n.lab.proc.spawn(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := n.headscale(ctx, "users", "create", "lab"); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("headscale ended: %w: %s", err, tail(log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("headscale does not answer: %w: %s", context.Cause(ctx), tail(log.Name()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// headscale runs one of its commands, with JSON as answer.
func (n *Tailnet) headscale(ctx context.Context, args ...string) (string, error) {
	return run(ctx, filepath.Join(n.tools, "headscale"), append([]string{"--config", n.dir + "/config.yaml", "--output", "json"}, args...)...)
}

// api answers the two calls by which an OAuth client mints a key, as https://tailscale.com/api describes them.
func (n *Tailnet) api() http.Handler {
	mux := http.NewServeMux()
	token := rand.Text()
	mux.HandleFunc("POST /api/v2/oauth/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_secret") != n.Secret {
			http.Error(w, `{"message":"API token invalid"}`, http.StatusUnauthorized)
			return
		}
		answer(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "auth_keys"})
	})
	mux.HandleFunc("POST /api/v2/tailnet/-/keys", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, `{"message":"API token invalid"}`, http.StatusUnauthorized)
			return
		}
		var ask struct {
			ExpirySeconds int `json:"expirySeconds"`
			Capabilities  struct {
				Devices struct {
					Create struct {
						Reusable, Ephemeral, Preauthorized bool
						Tags                               []string
					} `json:"create"`
				} `json:"devices"`
			} `json:"capabilities"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&ask); err != nil || len(ask.Capabilities.Devices.Create.Tags) == 0 {
			http.Error(w, `{"message":"tags are required for keys of an OAuth client"}`, http.StatusBadRequest)
			return
		}
		create := ask.Capabilities.Devices.Create
		m := MintRequest{create.Tags, create.Reusable, create.Ephemeral, ask.ExpirySeconds}
		key, err := n.mint(r.Context(), m)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		n.mu.Lock()
		n.asked = append(n.asked, m)
		n.mu.Unlock()
		answer(w, map[string]any{"id": "k" + rand.Text()[:8], "key": key})
	})
	return mux
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body) //nolint:errcheck // who asked has gone
}

func (n *Tailnet) mint(ctx context.Context, m MintRequest) (string, error) {
	args := []string{"preauthkeys", "create", "--user", "1", "--tags", strings.Join(m.Tags, ","), "--expiration", (time.Duration(m.Seconds) * time.Second).String()}
	if m.Reusable {
		args = append(args, "--reusable")
	}
	if m.Ephemeral {
		args = append(args, "--ephemeral")
	}
	out, err := n.headscale(ctx, args...)
	if err != nil {
		return "", err
	}
	var made struct {
		Key string `json:"key"`
	}
	err = json.Unmarshal([]byte(out), &made)
	if err == nil && made.Key == "" {
		err = errors.New("headscale minted no key: " + out)
	}
	return made.Key, err
}

// Asked returns the keys that were minted, in order.
func (n *Tailnet) Asked() []MintRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]MintRequest(nil), n.asked...)
}

// SetPolicy replaces the policy, and returns when headscale has taken it.
func (n *Tailnet) SetPolicy(ctx context.Context, policy string) error {
	if err := writeFile(n.dir+"/policy.hujson", []byte(policy), 0o600); err != nil {
		return err
	}
	_, err := n.headscale(ctx, "policy", "check", "--file", n.dir+"/policy.hujson")
	return err
}

// furnish puts Tailscale and the lab's authority into a machine that has not booted yet, as its package would lie there.
func (n *Tailnet) furnish(ctx context.Context, root string) error {
	if n == nil {
		return nil
	}
	ca, err := os.ReadFile(n.CA)
	if err != nil {
		return err
	}
	for name, to := range map[string]string{"tailscale": "usr/bin", "tailscaled": "usr/sbin"} {
		if _, err := run(ctx, "install", "-m", "0755", filepath.Join(n.tools, name), filepath.Join(root, to, name)); err != nil {
			return err
		}
	}
	unit, err := os.ReadFile(filepath.Join(n.tools, "tailscaled.service"))
	if err != nil {
		return err
	}
	bundle := filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")
	all, err := os.ReadFile(bundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, "usr/lib/systemd/system/tailscaled.service"), unit, 0o644),
		os.WriteFile(filepath.Join(root, "etc/default/tailscaled"), []byte("PORT=41641\nFLAGS=--no-logs-no-support\n"), 0o644),
		os.WriteFile(filepath.Join(root, "usr/local/share/ca-certificates/lab.crt"), ca, 0o644),
		os.WriteFile(bundle, bytes.Join([][]byte{bytes.TrimSpace(all), ca}, []byte("\n")), 0o644))
}
