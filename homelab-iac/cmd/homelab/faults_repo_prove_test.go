//go:build prove

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// lockBy leaves an exclusive lock in the repository, which is said to be of some process; with gone, that process ends.
func lockBy(host string, pid int, age time.Duration) play {
	var name string
	return play{
		begin: func(s *scene) {
			if host == "" {
				var err error
				if host, err = os.Hostname(); err != nil {
					s.t.Fatal(err)
				}
			}
			if pid == 0 {
				pid = os.Getpid()
			}
			name = restictest.Put(s.t, s.repo.URL, "locks", restictest.Lock{Time: time.Now().Add(-age), Exclusive: true, Hostname: host, Username: "root", PID: pid})
		},
		end: func(s *scene) { os.Remove(s.repo.URL + "/locks/" + name) },
	}
}

// noProcess is a number that no process has: the kernel gives none above its limit.
const noProcess = 1 << 30

var locks = map[string]play{
	"Locks: the lock of a process that lives on this machine": lockBy("", 0, time.Minute),
	"Locks: the lock of a process that died on this machine":  lockBy("", noProcess, 2*time.Hour),
	"Locks: a young lock of another machine":                  lockBy("another", 1, time.Minute),
	"Locks: a lock that another machine left two hours ago":   lockBy("another", 1, 2*time.Hour),
	"Locks: a lock of a machine whose clock is a day ahead":   lockBy("another", 1, -24*time.Hour),
	"Locks: a lock that cannot be read": {
		begin: func(s *scene) { s.garbage("locks/" + strings.Repeat("1", 64)) },
		end:   func(s *scene) { os.Remove(s.repo.URL + "/locks/" + strings.Repeat("1", 64)) }},
}

func (s *scene) garbage(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.repo.URL, name), []byte(strings.Repeat("no lock ", 20)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

var resticFaults = map[string]play{
	"Restic: the password is wrong": {
		begin: func(s *scene) { os.WriteFile(s.repo.PasswordFile, []byte("wrong\n"), 0o600) },
		end:   func(s *scene) { os.WriteFile(s.repo.PasswordFile, []byte("correct horse\n"), 0o600) }},
	"Restic: the file with the password is missing": {
		begin: func(s *scene) { s.move(s.repo.PasswordFile, s.repo.PasswordFile+"-away") },
		end:   func(s *scene) { s.move(s.repo.PasswordFile+"-away", s.repo.PasswordFile) }},
	"Restic: the repository is gone": {
		begin: func(s *scene) { s.move(s.repo.URL, s.repo.URL+"-away") },
		end:   func(s *scene) { s.move(s.repo.URL+"-away", s.repo.URL) }},
	"Restic: restic is not installed": {
		begin: func(s *scene) { s.move(s.dir+"/restic", s.dir+"/restic-away") },
		end:   func(s *scene) { s.move(s.dir+"/restic-away", s.dir+"/restic") }},
	"Restic: restic is too old to be trusted":           resticInstead("version", "echo restic 0.14.0 compiled with go1.19.8 on linux/amd64; exit 0"),
	"Restic: restic crashes (exit code 2)":              resticInstead("backup", "echo 'panic: runtime error' >&2; exit 2"),
	"Restic: restic ends with a code that nobody knows": resticInstead("backup", "exit 77"),
	"Restic: restic is killed for its memory":           resticInstead("backup", "kill -9 $$"),
	"Restic: restic ends well and names no snapshot":    resticInstead("backup", "exit 0"),
}

func resticInstead(word, script string) play {
	return play{begin: func(s *scene) { s.write("instead-restic-"+word, script) }, end: func(s *scene) { s.remove("instead-restic-" + word) }}
}

// damaged spoils a file of the repository, has the check find it, and mends it as the guide says.
func damaged(kind string, spoil func([]byte) []byte, mend func(s *scene, file string)) play {
	var file string
	var was []byte
	return play{
		begin: func(s *scene) {
			file = s.pick(kind)
			var err error
			if was, err = os.ReadFile(file); err != nil {
				s.t.Fatal(err)
			}
			if spoil == nil {
				err = os.Remove(file)
			} else {
				os.Chmod(file, 0o600)
				err = os.WriteFile(file, spoil(append([]byte{}, was...)), 0o600)
			}
			if err != nil {
				s.t.Fatal(err)
			}
			s.remove("cache") // another machine
		},
		act: func(s *scene) { s.does(exitFailed, "", "backup", "check", "fast", "--all") },
		end: func(s *scene) {
			if mend == nil { // its old version is put back
				os.WriteFile(file, was, 0o600)
			} else {
				mend(s, strings.TrimSuffix(filepath.Base(file), "\n"))
			}
		},
		again: []string{"backup", "check", "fast", "--all"},
	}
}

// pick chooses a file of the repository: of packs the one with the files' contents, or the one with the folders.
func (s *scene) pick(kind string) (file string) {
	kind, folders := strings.CutSuffix(kind, " of folders")
	size := int64(-1)
	filepath.WalkDir(s.repo.URL+"/"+kind, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil && (size < 0 || (st.Size() > size) != folders) {
			file, size = p, st.Size()
		}
		return err
	})
	return file
}

func half(b []byte) []byte { return b[:len(b)/2] }
func flip(b []byte) []byte { b[len(b)/3] ^= 0xff; return b }

// repair mends as the guide says: restic's repair, then two backups.
func repair(commands ...string) func(s *scene, file string) {
	return func(s *scene, file string) {
		s.t.Helper()
		only(commands...)(s, file)
		s.try("backup", "run", "fast") // it sends what is missing again and tells of it
		s.does(0, "1 of 1 services safe", "backup", "run", "fast")
		s.heard()
	}
}

// only runs restic's repair in a folder of its own, into which it copies what is broken.
func only(commands ...string) func(s *scene, file string) {
	return func(s *scene, file string) {
		s.t.Helper()
		for _, command := range commands {
			args := strings.Fields(strings.ReplaceAll(command, "ID", file))
			cmd := exec.Command(s.repo.Binary, args...)
			cmd.Dir, cmd.Env = s.t.TempDir(), append(os.Environ(), s.repo.Environ()...)
			if out, err := cmd.CombinedOutput(); err != nil {
				s.t.Errorf("restic %s: %v\n%s", command, err, out)
			}
		}
	}
}

var damages = map[string]play{
	"A damaged repository: a pack is missing":                        damaged("data", nil, repair("repair index")),
	"A damaged repository: a pack of folders is missing":             damaged("data of folders", nil, nil),
	"A damaged repository: a pack is cut off":                        damaged("data", half, repair("repair packs ID")),
	"A damaged repository: a bit of a pack flipped":                  damaged("data", flip, repair("repair packs ID")),
	"A damaged repository: the index is missing":                     damaged("index", nil, repair("repair index")),
	"A damaged repository: a backup runs while the index is missing": with(damaged("index", nil, only("repair index")), func(p *play) { p.act, p.again, p.code = nil, nil, exitPartial }),
	"A damaged repository: the index is cut off":                     damaged("index", half, repair("repair index")),
	"A damaged repository: a snapshot is damaged":                    damaged("snapshots", flip, nil),
	"A damaged repository: a snapshot is missing":                    with(damaged("snapshots", nil, nil), func(p *play) { p.act, p.again = nil, nil }),
	"A damaged repository: the key is damaged":                       damaged("keys", half, nil),
	"A damaged repository: the configuration is damaged":             damaged("config", flip, nil),
}

// smallDisk mounts a file system of some bytes on a folder; grow gives it more.
func smallDisk(t *testing.T, dir, size string) (grow func(size string)) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("homelab-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small file system: %v: run the proofs as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func(size string) {
		t.Helper()
		if err := unix.Mount("homelab-test", dir, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// fullDisk has a small file system somewhere, which is filled and later grows.
func fullDisk(where func(s *scene) string, code int, fill func(s *scene)) play {
	var grow func(string)
	return play{code: code, small: true,
		on: func(s *scene) {
			grow = smallDisk(s.t, where(s), "1m")
			restictest.Fill(s.t, s.repo.URL)
		},
		begin: fill,
		end:   func(s *scene) { s.remove("dump-instead"); grow("64m") }}
}

func noise(file string) func(s *scene) {
	return func(s *scene) {
		cmd := exec.Command("sh", "-c", "head -c 2000000 /dev/urandom >"+s.dir+file)
		cmd.Run() // where it does not fit it fills what there is
	}
}

var disks = map[string]play{
	"Full disks: where dumps are written": fullDisk(func(s *scene) string { return s.dir + "/dumps" }, exitPartial,
		func(s *scene) { s.write("dump-instead", `head -c 2000000 /dev/urandom >"$2"; exit $?`) }),
	"Full disks: where restic keeps its cache":  fullDisk(func(s *scene) string { return s.dir + "/cache" }, 0, noise("/notes/noise")),
	"Full disks: where the repository is":       fullDisk(func(s *scene) string { return s.repo.URL }, exitFailed, noise("/notes/noise")),
	"Full disks: where homelab keeps its books": fullDisk(func(s *scene) string { return s.dir + "/state" }, exitFailed, noise("/state/filler")),
}
