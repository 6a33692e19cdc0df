// Command labctl starts a lab that stays until it is told to go: what `make lab-up`, `lab-ssh` and `lab-down` call.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/test/images"
	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
	"home.arpa/lab/homelab-iac/test/online"
)

// slot is the one that this command uses, unless HOMELAB_LAB_SLOT names another; tests take the first free one from below.
var slot = lab.Slots

const usage = `labctl starts a lab that stays until it is told to go:

  up [--machines alpha,beta] [--json]     start it, or say where the running one is
  down                                    throw it away, and whatever dead labs left
  ssh NAME [COMMAND...]                   a shell on a machine, or one command
  status                                  its state.json
  prepare                                 make what machines and their containers are made from, where it is not there: setup.sh's last step
  zero [--again]                          make three serving machines of an empty lab, or go on where a killed run stopped
  scan [--ports A-B] MACHINE...           from outside: which TCP ports of a machine can be connected to; 1 when one can
  fault KIND [--action A] [--object P] [--times N]
                                          let the storage go wrong: 500, 503, 403, expired, hang, drip, cut, lost
  heal                                    and right again

HOMELAB_LAB_DIR names another folder than /var/tmp/homelab-lab, HOMELAB_LAB_SLOT another number than 60 (1 to 60).
Exit codes: 0 done, 1 it failed, 2 the command line is wrong.
`

// A usageError is a command line that is wrong.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run picks the command and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func([]string) error{
		"prepare": alone(prepare), "zero": zero, "scan": scan, "connect": connect, "up": up, "serve": serve, "down": alone(down), "ssh": ssh, "status": alone(status), "fault": fault, "heal": alone(heal),
	}
	switch {
	case len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]):
		fmt.Fprint(stdout, usage)
		return 0
	case len(args) == 0 || commands[args[0]] == nil:
		fmt.Fprintf(stderr, "labctl: there is no command %q\n\n%s", strings.Join(args[:min(1, len(args))], ""), usage)
		return 2
	}
	if text := os.Getenv("HOMELAB_LAB_SLOT"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > lab.Slots {
			fmt.Fprintf(stderr, "labctl: HOMELAB_LAB_SLOT=%s: a slot is a number from 1 to %d\n", text, lab.Slots)
			return 2
		}
		slot = n
	}
	err := commands[args[0]](args[1:])
	var exit *exec.ExitError
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && args[0] == "ssh":
		return exit.ExitCode()
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, "labctl:", err)
		return 2
	}
	fmt.Fprintln(stderr, "labctl:", err)
	return 1
}

// alone is a command that takes no words.
func alone(f func() error) func([]string) error {
	return func(args []string) error {
		if len(args) > 0 {
			return usageError(fmt.Sprintf("%q stands alone: this command takes nothing", args[0]))
		}
		return f()
	}
}

func dir() string {
	if d := os.Getenv("HOMELAB_LAB_DIR"); d != "" {
		return d
	}
	return "/var/tmp/homelab-lab"
}

func stateFile() string { return filepath.Join(dir(), fmt.Sprint(slot), "state.json") }

// prepare makes the images before any test needs them.
func prepare() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	say := func(text string) { fmt.Fprintln(os.Stderr, "labctl:", text) }
	if err := lab.Prepare(ctx, say); err != nil {
		return err
	}
	return images.Prepare(ctx, say)
}

// readyWait bounds a start: the image of a first one takes a minute or two.
const readyWait = 15 * time.Minute

// up starts `labctl serve` in the background and waits until its machines answer.
func up(args []string) error {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	machines := flags.String("machines", "alpha,beta", "names of the machines, separated by commas")
	asJSON := flags.Bool("json", false, "print the state as JSON")
	flags.Parse(args) //nolint:errcheck // it exits by itself
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("%q stands alone: write --machines %s", flags.Arg(0), strings.Join(flags.Args(), ",")))
	}
	names := strings.FieldsFunc(*machines, func(r rune) bool { return r == ',' })
	if err := lab.CheckNames(names); err != nil {
		return usageError("--machines " + *machines + ": " + err.Error())
	}
	if err := lab.Missing(); err != nil {
		return err
	}
	if pid := lab.Owner(dir(), slot); pid == 0 {
		if err := begin("--machines", strings.Join(names, ",")); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(os.Stderr, "lab: it is running already; for other machines end it first: make lab-down")
	}
	state, err := os.ReadFile(stateFile())
	if err != nil {
		return fmt.Errorf("read the lab's state: %w: it may be starting or ending; wait, or make lab-down", err)
	}
	if *asJSON {
		_, err = os.Stdout.Write(state)
		return err
	}
	var s lab.State
	if err := json.Unmarshal(state, &s); err != nil {
		return err
	}
	for name, addr := range s.Machines {
		fmt.Printf("%-12s %s   make lab-ssh M=%s\n", name, addr, name)
	}
	fmt.Printf("%-12s %s   keys in %s\n", "storage", s.Storage.Endpoint, stateFile())
	return nil
}

// begin starts the process that owns the lab, in a session of its own, and shows what it says until it is ready.
func begin(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir(), 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir(), fmt.Sprintf("%d.log", slot)))
	if err != nil {
		return err
	}
	defer log.Close()
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"serve"}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", log, log, []*os.File{says}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	says.Close()
	timer := time.AfterFunc(readyWait, func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended this moment
	})
	defer timer.Stop()
	var all bytes.Buffer
	io.Copy(io.MultiWriter(os.Stderr, &all), said) //nolint:errcheck // it ends when the other side closes it
	if !strings.HasSuffix(all.String(), "ready\n") {
		cmd.Wait() //nolint:errcheck // its words say more
		return fmt.Errorf("start the lab: see %s", log.Name())
	}
	return cmd.Process.Release()
}

// serve owns the lab until a signal ends it. What it says while starting goes to file descriptor 3.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	machines := flags.String("machines", "", "names of the machines, separated by commas")
	tailnet := flags.Bool("tailnet", false, "whether there is what the example deployment needs: a tailnet with its policy, and secrets")
	flags.Parse(args) //nolint:errcheck // it exits by itself
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if pid, err := strconv.Atoi(os.Getenv("HOMELAB_LAB_UNTIL")); err == nil && pid > 1 { // a test's lab ends with the test, also when that is killed
		go func() {
			for syscall.Kill(pid, 0) == nil {
				time.Sleep(time.Second)
			}
			stop()
		}()
	}
	syscall.CloseOnExec(3) // the machines must not keep it open
	front := os.NewFile(3, "front")
	say := func(text string) {
		fmt.Fprintln(front, "lab:", text)
		fmt.Println(time.Now().UTC().Format(time.RFC3339), text)
	}
	var names []string
	if *machines != "" {
		names = strings.Split(*machines, ",")
	}
	o := lab.Options{Machines: names, Storage: true, Slot: slot, Dir: dir(), Log: say}
	if *tailnet {
		o.Tailnet = online.Policy
		var err error
		if o.Secrets, err = online.Secrets(); err != nil {
			return err
		}
	}
	l, err := lab.Open(ctx, o)
	if err == nil {
		err = l.WriteState()
	}
	if err != nil {
		say(err.Error())
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	fmt.Fprintln(front, "ready")
	front.Close()
	<-ctx.Done()
	return l.Close()
}

// down ends the running lab and removes what dead ones left.
func down() error {
	if pid := lab.Owner(dir(), slot); pid > 1 {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		for until := time.Now().Add(30 * time.Second); lab.Owner(dir(), slot) == pid; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(until) {
				syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // the sweep sees what is left
				until = until.Add(time.Hour)
			}
		}
	}
	emptied, err := lab.Sweep(dir())
	for _, n := range emptied {
		fmt.Fprintf(os.Stderr, "lab: removed what a dead lab left in slot %d\n", n)
	}
	return err
}

// ssh becomes ssh to a machine.
func ssh(args []string) error {
	if len(args) == 0 {
		return usageError("which machine? labctl status names them")
	}
	var s lab.State
	text, err := os.ReadFile(stateFile())
	if err != nil || lab.Owner(dir(), slot) == 0 || json.Unmarshal(text, &s) != nil {
		return errors.New("no lab is running: make lab-up")
	}
	if _, ok := s.Machines[args[0]]; !ok {
		return usageError(fmt.Sprintf("there is no machine %q; there are %s", args[0], strings.Join(slices.Sorted(maps.Keys(s.Machines)), ", ")))
	}
	cmd := exec.Command("ssh", append([]string{"-F", filepath.Join(dir(), fmt.Sprint(slot), "ssh", "config")}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func status() error {
	state, err := os.ReadFile(stateFile())
	if err != nil || lab.Owner(dir(), slot) == 0 {
		return errors.New("no lab is running: make lab-up")
	}
	_, err = os.Stdout.Write(state)
	return err
}

// fault and heal speak to the running lab's storage proxy.
func fault(args []string) error {
	if len(args) == 0 {
		return usageError("which kind? 500, 503, 403, expired, hang, drip, cut, lost")
	}
	flags := flag.NewFlagSet("fault", flag.ExitOnError)
	action := flags.String("action", "", "only this action, for example PutObject")
	object := flags.String("object", "", "only objects of this pattern, for example */data/*")
	times := flags.Int("times", 0, "how often; 0 until heal")
	flags.Parse(args[1:]) //nolint:errcheck // it exits by itself
	body, err := json.Marshal(s3proxy.Fault{Kind: s3proxy.Kind(args[0]), Action: s3proxy.Action(*action), Object: *object, Times: *times})
	if err != nil {
		return err
	}
	return control(http.MethodPost, body)
}

func heal() error { return control(http.MethodDelete, nil) }

func control(method string, body []byte) error {
	socket := filepath.Join(dir(), fmt.Sprint(slot), "s3", "control.sock")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequest(method, "http://lab/faults", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("speak to the lab: %w: is it up? make lab-up", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return errors.New(strings.TrimSpace(string(said)))
	}
	return nil
}
