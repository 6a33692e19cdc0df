package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/resilience.md anew")

// A fault of the catalogue. TestFaults plays it against the whole program, or the test named by In does.
type fault struct {
	Group string
	Name  string
	Told  string // words of the one message that people get; "": nobody is told, since nothing is wrong afterwards
	Heals string // what ends it
	In    string // another test that plays it
}

const (
	byNext = "the next run"
	itself = "by itself"
)

// catalogue is every fault that is played. docs/resilience.md is made from it.
var catalogue = []fault{
	{"Killed", "SIGKILL while the repository is asked whether it is there", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while a container is stopped", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while a dump is written", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while restic sends", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL when restic has ended", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while the container is started again", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while maintenance judges what is old", "was killed at notes", byNext, ""},
	{"Killed", "SIGKILL while the space is freed", "it was killed", "the next maintenance", ""},
	{"Killed", "SIGKILL while the result is told", "", "`homelab watch`, which reads the repository", ""},
	{"Killed", "SIGTERM while restic sends, as systemd stops a unit", "it was interrupted", byNext, ""},
	{"Killed", "a power cut that leaves half-written state", "was killed", byNext, ""},
	{"Killed", "the machine was off for two days", "is 2d old, and 26h is promised", "`homelab backup catchup` at the next boot", ""},
	{"Killed", "the network comes late after a boot", "", "`homelab backup catchup` asks five times", ""},

	{"Two at once", "two backups on one machine", "", "the second says so and ends with 75", ""},
	{"Two at once", "a second backup that may wait", "", itself, ""},
	{"Two at once", "maintenance beside a backup", "", "the second says so and ends with 75", ""},

	{"Locks", "the lock of a process that lives on this machine", "may be alive", "when that process ends", ""},
	{"Locks", "the lock of a process that died on this machine", "", "the lock is judged dead and removed", ""},
	{"Locks", "a young lock of another machine", "may be alive", "when that machine is done", ""},
	{"Locks", "a lock that another machine left two hours ago", "", "the lock is judged dead and removed", ""},
	{"Locks", "a lock of a machine whose clock is a day ahead", "may be alive", "when that machine is done", ""},
	{"Locks", "a lock that cannot be read", "delete that one file", "that one file is deleted by hand", ""},

	{"Sources", "a folder is missing", "is the disk mounted?", byNext, ""},
	{"Sources", "a folder is suddenly empty", "is everything mounted?", byNext, ""},
	{"Sources", "more than half of the files are gone", "is everything mounted?", byNext, ""},
	{"Sources", "a file cannot be read", "permission denied", byNext, ""},
	{"Sources", "a folder cannot be read", "permission denied", byNext, ""},
	{"Sources", "files grow and shrink while they are read", "", byNext, ""},
	{"Sources", "an owner is not the one of the contract", "", "a warning in the report; the snapshot keeps what is there", ""},

	{"Dumps", "the program that dumps fails", "the program is broken", byNext, ""},
	{"Dumps", "the dump has half its size", "had 14 the last time", byNext, ""},
	{"Dumps", "the dump is empty", "is empty", byNext, ""},
	{"Dumps", "the dump is not written", "wrote no", byNext, ""},
	{"Dumps", "the program that dumps never ends", "signal: terminated", byNext, ""},
	{"Dumps", "PostgreSQL restarts during the dump", "dump database shop", byNext, ""},
	{"Dumps", "PostgreSQL is down", "run psql", byNext, ""},
	{"Dumps", "PostgreSQL is of another major version", "its own major version", byNext, ""},
	{"Dumps", "a database is gone", "does not exist", byNext, ""},
	{"Dumps", "most rows of a database are gone", "the last time", byNext, ""},
	{"Dumps", "the container cannot be stopped", "no such container", byNext, ""},
	{"Dumps", "the container cannot be started again", "stands still: start it by hand", byNext, ""},

	{"Restic", "the password is wrong", "the password is wrong", byNext, ""},
	{"Restic", "the file with the password is missing", "role restic writes it", byNext, ""},
	{"Restic", "the repository is gone", "there is no repository", byNext, ""},
	{"Restic", "restic is not installed", "install it with role restic", byNext, ""},
	{"Restic", "restic is too old to be trusted", "install the one of role restic", byNext, ""},
	{"Restic", "restic crashes (exit code 2)", "exit code 2", byNext, ""},
	{"Restic", "restic ends with a code that nobody knows", "exit code 77", byNext, ""},
	{"Restic", "restic is killed for its memory", "killed by a signal", byNext, ""},
	{"Restic", "restic ends well and names no snapshot", "named no snapshot", byNext, ""},

	{"A damaged repository", "a pack is missing", "errors", "`repair index`, then two runs: the first tells what it sent again", ""},
	{"A damaged repository", "a pack of folders is missing", "errors", "its old version is put back: nobody else has old folders", ""},
	{"A damaged repository", "a pack is cut off", "errors", "`repair packs`, then two runs: the first tells what it sent again", ""},
	{"A damaged repository", "a bit of a pack flipped", "errors", "`repair packs`, then two runs: the first tells what it sent again", ""},
	{"A damaged repository", "the index is missing", "homelab backup check", "`repair index`", ""},
	{"A damaged repository", "a backup runs while the index is missing", "repair index", "`repair index`", ""},
	{"A damaged repository", "the index is cut off", "homelab backup check", "`repair index`", ""},
	{"A damaged repository", "a snapshot is damaged", "homelab backup check", "its old version is put back", ""},
	{"A damaged repository", "a snapshot is missing", "1 snapshots that the last maintenance left are gone", "its old version is put back", ""},
	{"A damaged repository", "the key is damaged", "homelab backup check", "its old version is put back", ""},
	{"A damaged repository", "the configuration is damaged", "homelab backup check", "its old version is put back", ""},

	{"Full disks", "where dumps are written", "o space left", byNext, ""},
	{"Full disks", "where restic keeps its cache", "", "nothing is needed", ""},
	{"Full disks", "where the repository is", "no space left", byNext, ""},
	{"Full disks", "where homelab keeps its books", "no space left", byNext, ""},

	{"Storage", "nobody answers", "connection refused", byNext, ""},
	{"Storage", "it answers 500 again and again", "no answer in time", byNext, ""},
	{"Storage", "it answers 503 again and again", "no answer in time", byNext, ""},
	{"Storage", "it answers 403", "of the three", byNext, ""},
	{"Storage", "it answers 500 while data are sent", "no answer in time", byNext, ""},
	{"Storage", "it takes requests and never answers", "no answer in time", byNext, ""},
	{"Storage", "it answers one byte a second", "no answer in time", byNext, ""},
	{"Storage", "it cuts every answer in the middle", "no answer in time", byNext, ""},
	{"Storage", "it answers 500 twice", "", itself, ""},
	{"Storage", "it answers 503 twice", "", itself, ""},
	{"Storage", "it keeps an object and its answer is lost", "", itself, ""},
	{"Storage", "the key has ended", "the key has ended", "a new key", ""},
	{"Storage", "the key may only read", "of the three", "the right key", ""},
	{"Storage", "the storage does not know the key", "does not know this key", "the right key", ""},
	{"Storage", "the key's secret is another", "does not know this key", "the right key", ""},
	{"Storage", "the file with the key is missing", "read key", "role restic writes it", ""},
	{"Storage", "a key ends within two weeks", "ends on", "a new key", ""},

	{"Clocks", "20 minutes ahead of the storage", "timedatectl", byNext, ""},
	{"Clocks", "20 minutes behind the storage", "timedatectl", byNext, ""},
	{"Clocks", "10 minutes ahead of the storage, which still takes it", "10m ahead of the storage's", itself, ""},
	{"Clocks", "20 minutes ahead while a backup was made", "which is to come", "when that time has come, or `--accept`", ""},
	{"Clocks", "a day ahead while a backup was made", "which is to come", "when that time has come, or `--accept`", ""},
	{"Clocks", "20 minutes behind while a backup was made", "was not there at the last maintenance", "`--accept`", ""},
	{"Clocks", "a day behind while a backup was made", "was not there at the last maintenance", "`--accept`", ""},

	{"Telling", "Uptime Kuma is down", "Uptime Kuma, pushed from here", itself, ""},
	{"Telling", "Uptime Kuma has forgotten the monitors", "Uptime Kuma, pushed from here", "`homelab kuma sync`", ""},
	{"Telling", "Uptime Kuma restarts every day", "", "silence is still noticed within the monitor's interval", "TestSilenceIsNoticedAlthoughKumaRestarts"},
	{"Telling", "Discord answers 429", "is the disk mounted?", "the message arrives once, when Discord takes it", ""},
	{"Telling", "Discord is away from the beginning to the end", "nobody could be told that it was not", "it is told afterwards", ""},
	{"Telling", "the webhook is deleted", "is the disk mounted?", "a new webhook", ""},

	{"An intruder with the backup key", "he deletes every object", "", "every deletion is refused", "TestAnIntruderInTheLabLosesUsNothing"},
	{"An intruder with the backup key", "he forges a hundred snapshots", "somebody else adds some", "maintenance refuses; a person looks, removes them and runs it with `--accept`", "TestAnIntruderInTheLabLosesUsNothing"},
	{"An intruder with the backup key", "he writes over every object", "cannot be read", "old versions are put back; maintenance refuses until then", "TestAnIntruderInTheLabLosesUsNothing"},
}

const faultsHead = `# What goes wrong on purpose

Made from the table in ` + "`homelab-iac/cmd/homelab/faults_test.go`" + ` (` + "`go test ./homelab-iac/cmd/homelab -update`" + `); do not edit it. ` + "`make prove`" + ` plays each of these %d
faults against the whole program, with a real restic, S3 server and PostgreSQL, and checks the same of each:

1. People get one message when it begins and one when it is over, with the words below; the monitor goes down and up. Where nobody is told, nothing is wrong.
2. What was backed up before comes back exactly, and so does what is backed up afterwards: content, owners, modes, times.
3. No dump, lock or journal is left, no container stands still, and every byte of the repository checks.
4. What is named in the last column ends it.

`

// faultsPage is docs/resilience.md.
func faultsPage() string {
	var b strings.Builder
	fmt.Fprintf(&b, faultsHead, len(catalogue))
	group := ""
	for i, f := range catalogue {
		if f.Group != group {
			if group != "" {
				b.WriteString("\n")
			}
			group = f.Group
			fmt.Fprintf(&b, "## %s\n\n| | Fault | What people are told | What ends it |\n|--:|---|---|---|\n", group)
		}
		told := "nobody"
		if f.Told != "" {
			told = "\"" + f.Told + "\""
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", i+1, f.Name, told, f.Heals)
	}
	return b.String()
}

func TestThePageOfFaultsIsTheCatalogue(t *testing.T) {
	const page = "../../../docs/resilience.md"
	if *update {
		if err := os.WriteFile(page, []byte(faultsPage()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != faultsPage() {
		t.Errorf("docs/resilience.md is stale: go test ./homelab-iac/cmd/homelab -update")
	}
	seen := map[string]bool{}
	for _, f := range catalogue {
		if id := f.Group + f.Name; seen[id] {
			t.Errorf("%s: %s is there twice", f.Group, f.Name)
		} else {
			seen[id] = true
		}
		if f.In != "" && !isTest(t, f.In) {
			t.Errorf("%s: %s is to be played by %s, which is not there", f.Group, f.Name, f.In)
		}
	}
	if len(catalogue) < 40 {
		t.Errorf("%d faults", len(catalogue))
	}
}

// isTest says whether some proof is called name.
func isTest(t *testing.T, name string) bool {
	t.Helper()
	found := false
	for _, pattern := range []string{"*_test.go", "../../internal/*/*_test.go", "../../test/*/*_test.go", "../../../internal/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			found = found || err == nil && bytes.Contains(text, []byte("func "+name+"("))
		}
	}
	return found
}
