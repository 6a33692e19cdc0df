// Package lab makes clean Debian machines on this machine, throws them away again, and gives them an S3 server to back up
// to. A machine is a systemd-nspawn container that boots systemd from an overlay over one cached image, in a network
// namespace of its own; it is reached over SSH like any other and has no way out to the internet. Debian packages come
// through a proxy that knows only the mirror.
//
// A Lab belongs to the process that opened it. Everything it makes lies in one folder and one slot, whose lock the process
// holds: when the process is killed, its children die with it, and the next Open removes what is left.
//
// It needs Linux, root, systemd-nspawn, mmdebstrap (for the first image) and OpenSSH; homelab-iac/test/setup.sh installs them.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/homelab-iac/test/infisical"
)

// Options says what a lab should have.
type Options struct {
	Machines []string               // names of machines to start with: a-z, 0-9 and -, at most 13
	Storage  bool                   // whether there is an S3 server
	Secrets  *infisical.Server      // an imitation of Infisical to serve on loopback; nil: there is none
	Tailnet  string                 // the policy (HuJSON) of the machines' tailnet; "": there is none
	Dir      string                 // where labs lie; "": $HOMELAB_LAB_DIR or /var/tmp/homelab-lab
	Slot     int                    // which slot to take, 1 to Slots; 0: the first free one
	Log      func(text string)      // told of each step; nil: nobody is
	Reach    []string               // "host:port" that machines may reach, through the proxy at Way
	Packages func(host string) bool // which hosts the package proxy reaches; nil: those of this machine's own mirrors
}

// Slots is how many labs there can be on one machine at a time.
const Slots = 60

// A Lab is a network with machines on it.
type Lab struct {
	options Options
	slot    *slot
	dir     string // of this lab: slot.dir
	image   string // the root that all machines share, read-only
	proc    *processes
	store   *Store
	pkgs    *packages
	way     *way
	tailnet *Tailnet
	secrets *secretsServer

	mu       sync.Mutex
	machines map[string]*Machine
	next     int // the last byte of the next machine's address
}

// Open makes a lab: it removes what dead ones left, takes a slot, and starts what options name. On an error nothing is left.
func Open(ctx context.Context, o Options) (*Lab, error) {
	if o.Dir == "" {
		o.Dir = os.Getenv("HOMELAB_LAB_DIR")
	}
	if o.Dir == "" {
		o.Dir = "/var/tmp/homelab-lab"
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if err := errors.Join(CheckNames(o.Machines), Missing()); err != nil {
		return nil, err
	}
	if _, err := Sweep(o.Dir); err != nil {
		return nil, err
	}
	image, err := ensureImage(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	s, err := takeSlot(o.Dir, o.Slot)
	if err != nil {
		return nil, err
	}
	l := &Lab{options: o, slot: s, dir: s.dir, image: image, machines: map[string]*Machine{}, next: 11}
	l.proc = newProcesses(filepath.Join(s.dir, "processes"))
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.slot.network(ctx); err != nil {
		return err
	}
	if err := l.slot.plug(ctx, "stranger", l.slot.address(strangerAt)); err != nil {
		return err
	}
	if err := l.keys(ctx); err != nil {
		return err
	}
	var err error
	if l.pkgs, err = servePackages(l.slot.gateway(), l.options.Packages); err != nil {
		return err
	}
	if len(l.options.Reach) > 0 {
		if l.way, err = openWay(net.JoinHostPort(l.slot.gateway(), "3128"), l.options.Reach); err != nil {
			return err
		}
	}
	if l.options.Storage {
		if l.store, err = l.openStore(ctx); err != nil {
			return err
		}
		l.options.Log("storage answers at " + l.store.Endpoint)
	}
	if l.options.Secrets != nil {
		if l.secrets, err = serveSecrets(l.options.Secrets); err != nil {
			return err
		}
	}
	if l.options.Tailnet != "" {
		if l.tailnet, err = l.openTailnet(ctx); err != nil {
			return err
		}
		l.options.Log("the tailnet's control server answers at " + l.tailnet.URL)
	}
	return l.addAll(ctx, l.options.Machines)
}

// strangerAt is the last byte of the address from which nobody is let in: a namespace on the machines' network with nothing in it, which stands
// for the internet.
const strangerAt = 251

// Stranger is the file of that network namespace: nsenter --net=FILE.
func (l *Lab) Stranger() string { return l.slot.space("m-stranger") }

// addAll starts machines beside each other.
func (l *Lab) addAll(ctx context.Context, names []string) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { _, errs[i] = l.Add(ctx, name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

var machineName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,12}$`)

// CheckNames tells which names no machine can have: of those that are wrong or stand twice the first.
func CheckNames(names []string) error {
	for i, name := range names {
		if !machineName.MatchString(name) {
			return fmt.Errorf("start machine %q: a name has at most 13 letters a-z, digits and -, and begins with a letter", name)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("start machine %q: it is named twice", name)
		}
	}
	return nil
}

// Add starts a clean machine and returns when it answers over SSH.
func (l *Lab) Add(ctx context.Context, name string) (*Machine, error) {
	if err := CheckNames([]string{name}); err != nil {
		return nil, err
	}
	l.mu.Lock()
	if _, there := l.machines[name]; there || l.next > 250 {
		l.mu.Unlock()
		return nil, fmt.Errorf("start machine %s: the name is taken, or all addresses are: remove a machine first", name)
	}
	m := &Machine{Name: name, Addr: l.slot.address(l.next), lab: l, dir: filepath.Join(l.dir, "machines", name)}
	l.machines[name] = m
	l.next++
	l.mu.Unlock()
	if err := m.make(ctx); err != nil {
		return nil, errors.Join(err, m.Remove())
	}
	return m, nil
}

// Machine returns a machine by its name, or nil.
func (l *Lab) Machine(name string) *Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machines[name]
}

// Store returns the S3 server, nil where Options had none.
func (l *Lab) Store() *Store { return l.store }

// Tailnet returns the machines' tailnet, nil where Options had none.
func (l *Lab) Tailnet() *Tailnet { return l.tailnet }

// SSHConfig is a file for `ssh -F` that knows every machine by its name, with the keys on both sides.
func (l *Lab) SSHConfig() string { return filepath.Join(l.dir, "ssh", "config") }

// Mirror is what to put before a path to reach packages: the proxy's URL.
func (l *Lab) Mirror() string { return l.pkgs.url }

// Way is the proxy to what Options.Reach names, "" where it names nothing.
func (l *Lab) Way() string {
	if l.way == nil {
		return ""
	}
	return l.way.url
}

// Dir is the lab's folder. It goes when the lab does.
func (l *Lab) Dir() string { return l.dir }

// Close throws everything away. It is safe to call twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	all := make([]*Machine, 0, len(l.machines))
	for _, m := range l.machines {
		all = append(all, m)
	}
	l.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() { errs[i] = m.Remove() })
	}
	wg.Wait()
	if l.store != nil {
		l.store.close()
	}
	l.pkgs.close()
	l.way.close()
	l.tailnet.close()
	l.secrets.close()
	l.proc.close()
	return errors.Join(append(errs, l.slot.remove(), l.slot.release())...)
}

// A secretsServer serves the imitation of Infisical to this machine.
type secretsServer struct {
	state  SecretsState
	server *http.Server
}

// SecretsState is how playbooks reach it; the names are those of role services.
type SecretsState struct {
	URL          string `json:"url"`
	Project      string `json:"project"`
	Environment  string `json:"environment"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

func serveSecrets(s *infisical.Server) (*secretsServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve secrets: %w", err)
	}
	served := &secretsServer{SecretsState{"http://" + l.Addr().String(), s.Project, s.Environment, s.ID, s.Secret}, &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}}
	go served.server.Serve(l) //nolint:errcheck // it ends when it is closed
	return served, nil
}

func (s *secretsServer) close() {
	if s != nil {
		s.server.Close() //nolint:errcheck // all of it goes
	}
}

// A State is what others need to know of a running lab; `lab up` writes it to state.json and prints it.
type State struct {
	Slot      int               `json:"slot"`
	PID       int               `json:"pid"`
	Dir       string            `json:"dir"`
	SSHConfig string            `json:"ssh_config"`
	Packages  string            `json:"packages"` // the proxy's URL
	Machines  map[string]string `json:"machines"` // address by name
	Storage   *StoreState       `json:"storage,omitempty"`
	Gateway   string            `json:"gateway"`  // the address from which this machine comes
	Stranger  string            `json:"stranger"` // a network namespace from which nobody is let in
	Tailnet   *TailnetState     `json:"tailnet,omitempty"`
	Infisical *SecretsState     `json:"infisical,omitempty"`
}

// State returns what others need to know. It holds the keys of the lab's storage, which are worth nothing elsewhere.
func (l *Lab) State() State {
	s := State{Slot: l.slot.n, PID: os.Getpid(), Dir: l.dir, SSHConfig: l.SSHConfig(), Packages: l.Mirror(), Gateway: l.slot.gateway(), Stranger: l.Stranger(), Machines: map[string]string{}}
	l.mu.Lock()
	for name, m := range l.machines {
		s.Machines[name] = m.Addr
	}
	l.mu.Unlock()
	if l.store != nil {
		s.Storage = &l.store.StoreState
	}
	if l.secrets != nil {
		s.Infisical = &l.secrets.state
	}
	if l.tailnet != nil {
		s.Tailnet = &l.tailnet.TailnetState
	}
	return s
}

// WriteState writes state.json into the lab's folder, in one step.
func (l *Lab) WriteState() error {
	b, err := json.MarshalIndent(l.State(), "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(l.dir, "state.json"), append(b, '\n'), 0o600)
}

// writeConfig writes what `ssh -F` reads, for all machines that are there now.
func (l *Lab) writeConfig() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var config, known strings.Builder
	dir := filepath.Join(l.dir, "ssh")
	names := make([]string, 0, len(l.machines))
	for name, m := range l.machines {
		if m.hostKey != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		m := l.machines[name]
		fmt.Fprintf(&config, "Host %s\n  HostName %s\n  HostKeyAlias %s\n", name, m.Addr, name)
		fmt.Fprintf(&known, "%s %s\n", name, m.hostKey)
	}
	fmt.Fprintf(&config, "Host *\n  User root\n  IdentityFile %s/key\n  IdentitiesOnly yes\n  UserKnownHostsFile %s/known_hosts\n", dir, dir)
	config.WriteString("  StrictHostKeyChecking yes\n  ConnectTimeout 5\n  ServerAliveInterval 5\n  BatchMode yes\n  LogLevel ERROR\n")
	return errors.Join(
		writeFile(filepath.Join(dir, "known_hosts"), []byte(known.String()), 0o600),
		writeFile(filepath.Join(dir, "config"), []byte(config.String()), 0o600))
}

// keys makes the key that opens every machine of this lab.
func (l *Lab) keys(ctx context.Context) error {
	dir := filepath.Join(l.dir, "ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "homelab-lab", "-f", filepath.Join(dir, "key")); err != nil {
		return err
	}
	return l.writeConfig()
}

// patience bounds every single step that should take a second.
const patience = 3 * time.Minute
