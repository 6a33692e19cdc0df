package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/online"
)

// zero starts the example deployment's machines with nothing on them, unless they run, and takes them through the stages.
func zero(args []string) error {
	flags := flag.NewFlagSet("zero", flag.ExitOnError)
	again := flags.Bool("again", false, "run every stage, also those that were done")
	root := flags.String("root", ".", "the repository")
	flags.Parse(args) //nolint:errcheck // it exits by itself
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	say := func(text string) { fmt.Println("zero:", text) }
	if err := lab.Missing(); err != nil {
		return err
	}
	began := time.Now()
	if lab.Owner(dir(), slot) == 0 {
		if err := begin("--tailnet", "--machines", strings.Join(online.Hosts, ",")); err != nil {
			return err
		}
		say(fmt.Sprintf("machines  %6.1f s", time.Since(began).Seconds()))
	} else if err := waitState(ctx); err != nil {
		return err
	}
	s, err := online.ReadState(stateFile())
	if err != nil {
		return err
	}
	for _, h := range online.Hosts {
		if s.Machines[h] == "" || s.Tailnet == nil {
			return fmt.Errorf("slot %d holds another lab, without %s or a tailnet: make lab-down", slot, h)
		}
	}
	repository, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	return online.Zero(ctx, repository, stateFile(), *again, say)
}

// waitState waits for a lab that another one is starting: a killed zero leaves it to itself.
func waitState(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		if _, err := os.Stat(stateFile()); err == nil {
			return nil
		}
		if lab.Owner(dir(), slot) == 0 {
			return errors.New("the lab that was starting has ended: run this again")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lab that is starting: %w: make lab-down", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// scan connects to every TCP port of machines from the lab's stranger: a machine beside them that is neither the controller nor in the tailnet.
func scan(args []string) error {
	flags := flag.NewFlagSet("scan", flag.ExitOnError)
	ports := flags.String("ports", "1-65535", "which ones")
	asJSON := flags.Bool("json", false, "print JSON: the open ports of each machine")
	flags.Parse(args) //nolint:errcheck // it exits by itself
	s, err := online.ReadState(stateFile())
	if err != nil || len(flags.Args()) == 0 {
		return errors.Join(err, errors.New("which machines? labctl status names them"))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	open := map[string][]int{}
	errs := make([]error, len(flags.Args()))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, name := range flags.Args() {
		wg.Go(func() {
			if s.Machines[name] == "" {
				errs[i] = fmt.Errorf("there is no machine %s", name)
				return
			}
			cmd := exec.Command("nsenter", "--net="+s.Stranger, self, "connect", s.Machines[name], *ports)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			var found []int
			if err == nil {
				err = json.Unmarshal(out, &found)
			}
			errs[i] = err
			mu.Lock()
			open[name] = found
			mu.Unlock()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(open)
	}
	reached := 0
	for _, name := range flags.Args() {
		fmt.Printf("%-14s open: %v\n", name, open[name])
		reached += len(open[name])
	}
	if reached > 0 {
		return fmt.Errorf("%d ports are open to anybody", reached)
	}
	return nil
}

// atOnce is how many connections a scan tries at a time, and connectWait how long each may take: on the lab's own network an answer takes well
// below a millisecond, and a SYN that was dropped by a busy machine is sent again after one second (RFC 6298).
const (
	atOnce      = 6000
	connectWait = 1300 * time.Millisecond
)

// connect tries to connect to ports from where it runs, and prints those that it could as JSON.
func connect(args []string) error {
	if len(args) != 2 {
		return errors.New("connect ADDRESS FIRST-LAST")
	}
	from, to, _ := strings.Cut(args[1], "-")
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	open := []int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	dialer := net.Dialer{Timeout: connectWait, FallbackDelay: -1, KeepAlive: -1}
	for port := first; port <= last; port++ {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			c, err := dialer.Dial("tcp", net.JoinHostPort(args[0], strconv.Itoa(port)))
			if err != nil {
				return
			}
			c.Close()
			mu.Lock()
			open = append(open, port)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(open)
	return json.NewEncoder(os.Stdout).Encode(open)
}
