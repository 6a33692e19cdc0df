//go:build prove

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/postgres/postgrestest"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

var killed = map[string]play{
	"Killed: SIGKILL while the repository is asked whether it is there": killedAt("block-restic-cat"),
	"Killed: SIGKILL while a container is stopped":                      killedAt("block-compose-stop"),
	"Killed: SIGKILL while a dump is written":                           killedAt("block-dump-run"),
	"Killed: SIGKILL while restic sends": with(killedAt(""), func(p *play) {
		p.on = onS3
		p.begin = func(s *scene) {
			restictest.Write(s.t, s.source, map[string]string{"new.md": strings.Repeat("something new ", 1000)})
			inject(s3proxy.Fault{Kind: s3proxy.Hang, Action: s3proxy.PutObject, Object: "*/data/*"})(s)
		}
		p.end = healed
	}),
	"Killed: SIGKILL when restic has ended":                killedAt("after-restic-backup"),
	"Killed: SIGKILL while the container is started again": killedAt("block-compose-start"),
	"Killed: SIGKILL while maintenance judges what is old": killedAt("block-restic-forget"),
	"Killed: SIGKILL while the space is freed": func() play {
		p := killedAt("block-restic-prune", "backup", "maintenance", "fast", "--prune")
		p.again = []string{"backup", "maintenance", "fast", "--prune"}
		return p
	}(),
	"Killed: SIGKILL while the result is told": {act: func(s *scene) {
		told := make(chan struct{})
		s.answers(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/api/push/") {
				close(told)
				<-r.Context().Done()
			}
			return true
		})
		cmd := s.process("backup", "run", "fast")
		<-told
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		s.answers(nil)
		s.does(0, "files", "watch")
	}},
	"Killed: SIGTERM while restic sends, as systemd stops a unit": {
		begin: func(s *scene) { s.write("instead-restic-backup", "touch "+s.dir+"/reached; exec sleep 60") },
		act: func(s *scene) {
			cmd := s.process("backup", "run", "fast")
			s.reached()
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				s.t.Errorf("exit code %d", code)
			}
		},
		end: func(s *scene) { s.remove("instead-restic-backup") },
	},
	"Killed: a power cut that leaves half-written state": {act: func(s *scene) {
		for _, name := range []string{"running-fast.json", "last-fast.json", "check-fast.json", "incidents.json"} {
			s.write("state/"+name, `{"services": {"no`)
		}
		s.write("state/.part-123", "half")
		os.Remove(s.dir + "/state/.part-123")
		s.try("watch")
	}, end: func(s *scene) { s.does(0, "is whole", "backup", "check", "fast") },
		special: func(s *scene) bool { // that the check is not known any more is told, too
			pushes, posts := s.heard()
			return strings.Contains(posts, "🔴 backup fast on here: the fast backup that began") && strings.Contains(pushes, "down")
		}},
	"Killed: the machine was off for two days": {act: func(s *scene) {
		s.older(48 * time.Hour)
		s.does(1, "", "watch")
	}, again: []string{"backup", "catchup"},
		special: func(s *scene) bool {
			_, posts := s.heard()
			return strings.Count(posts, "🔴") == 1 && strings.Contains(posts, "is 2d old, and 26h is promised")
		}},
	"Killed: the network comes late after a boot": {on: onS3, act: func(s *scene) {
		s.older(48 * time.Hour)
		inject(forbidden(2))(s)
		s.does(0, "trying again", "backup", "catchup")
	}, end: healed},

	"Two at once: two backups on one machine": {act: func(s *scene) {
		s.atWork(func() { s.does(exitBusy, "another backup is at work", "backup", "run", "fast") })
	}},
	"Two at once: a second backup that may wait": {act: func(s *scene) {
		var second sync.WaitGroup
		s.atWork(func() {
			second.Go(func() { s.does(0, "1 of 1 services safe", "backup", "run", "fast", "--wait", "2m") })
		})
		second.Wait()
	}},
	"Two at once: maintenance beside a backup": {act: func(s *scene) {
		s.atWork(func() { s.does(exitBusy, "another backup is at work", "backup", "maintenance", "fast") })
	}},
}

// atWork has a backup at work while something happens, and lets it end well.
func (s *scene) atWork(f func()) {
	s.t.Helper()
	s.write("block-dump-run", "")
	cmd := s.process("backup", "run", "fast")
	s.reached()
	f()
	s.remove("block-dump-run")
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("the first: %v", err)
	}
}

// older makes what there is older: snapshots carry the time that they were made with.
func (s *scene) older(by time.Duration) {
	s.t.Helper()
	id := s.newest().ID
	args := []string{"rewrite", "--new-time", time.Now().Add(-by).Format("2006-01-02 15:04:05"), "--forget", id}
	repo := s.repo
	if len(repo.Env) > 0 {
		repo.Env = []string{"AWS_ACCESS_KEY_ID=maintenance", "AWS_SECRET_ACCESS_KEY=" + restictest.Secret("maintenance")}
	}
	if _, err := repo.Run(s.t.Context(), args, nil); err != nil {
		s.t.Fatal(err)
	}
	s.remove("state/maintained-fast.json") // the next maintenance compares with what it finds
	s.before = s.newest()
}

var sources = map[string]play{
	"Sources: a folder is missing": {code: exitPartial,
		begin: func(s *scene) { s.move(s.source, s.dir+"/away") },
		end:   func(s *scene) { s.move(s.dir+"/away", s.source) }},
	"Sources: a folder is suddenly empty": {code: exitPartial,
		begin: func(s *scene) { s.move(s.source, s.dir+"/away"); os.Mkdir(s.source, 0o755) },
		end:   func(s *scene) { os.Remove(s.source); s.move(s.dir+"/away", s.source) }},
	"Sources: more than half of the files are gone": {code: exitPartial,
		begin: func(s *scene) { s.move(s.source+"/daily", s.dir+"/away") },
		end:   func(s *scene) { s.move(s.dir+"/away", s.source+"/daily") }},
	"Sources: a file cannot be read":   unreadable("b/d.md"),
	"Sources: a folder cannot be read": unreadable("b"),
	"Sources: files grow and shrink while they are read": {act: func(s *scene) {
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					os.WriteFile(s.source+"/daily/3.md", bytes.Repeat([]byte("x"), n%2000*100), 0o644)
				}
			}
		})
		s.does(0, "1 of 1 services safe", "backup", "run", "fast")
		close(stop)
		writer.Wait()
	}},
	"Sources: an owner is not the one of the contract": {
		begin: func(s *scene) { os.Chown(s.source, 4711, 4711) },
		act:   func(s *scene) { s.does(0, "4711:4711 0755, and the catalog says", "backup", "run", "fast") },
		end:   func(s *scene) { os.Chown(s.source, os.Getuid(), os.Getgid()) }},
}

// unreadable takes the right to read something from its owner, and from root the right to read all the same.
func unreadable(name string) play {
	var mode os.FileMode
	return play{
		begin: func(s *scene) {
			st, err := os.Stat(s.source + "/" + name)
			if err != nil {
				s.t.Fatal(err)
			}
			mode = st.Mode().Perm()
			os.Chmod(s.source+"/"+name, 0)
		},
		act: func(s *scene) {
			cmd := exec.Command("setpriv", "--bounding-set", "-dac_override,-dac_read_search", os.Args[0], "backup", "run", "fast", "--config", s.config)
			cmd.Env = append(os.Environ(), "HOMELAB_TEST_REMOTE=1")
			if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitPartial {
				s.t.Errorf("%v\n%s", err, out)
			}
		},
		end: func(s *scene) { os.Chmod(s.source+"/"+name, mode) },
	}
}

var dumps = map[string]play{
	"Dumps: the program that dumps fails":          dumpInstead("echo the program is broken >&2; exit 7"),
	"Dumps: the dump has half its size":            dumpInstead(`printf half >"$2"; exit 0`),
	"Dumps: the dump is empty":                     dumpInstead(`: >"$2"; exit 0`),
	"Dumps: the dump is not written":               dumpInstead("exit 0"),
	"Dumps: the program that dumps never ends":     with(dumpInstead("exec sleep 60"), func(p *play) { p.bounds = func(x *patience) { x.Bounds.Dump = 3 * time.Second } }),
	"Dumps: the container cannot be stopped":       composeInstead("stop", "echo no such container >&2; exit 1"),
	"Dumps: the container cannot be started again": with(composeInstead("start", "echo no such container >&2; exit 1"), func(p *play) { p.code = exitFailed }),
	"Dumps: PostgreSQL restarts during the dump": {on: withDatabase,
		begin: func(s *scene) { // the dump stands still once it has begun, until its sessions have ended
			was, err := os.ReadFile(s.dir + "/pg")
			if err != nil {
				s.t.Fatal(err)
			}
			if err := os.Mkdir(s.dir+"/still", 0o700); err != nil {
				s.t.Fatal(err)
			}
			s.move(s.dir+"/pg", s.dir+"/pg-was")
			s.write("pg", string(was)+"export PATH="+s.dir+"/still:$PATH\n")
			s.write("still/pg_dump", "#!/bin/sh\nif [ \"$1\" != --version ]; then : >"+s.dir+"/dumping\nfor i in $(seq 3000); do [ -e "+s.dir+"/ended ] && break; sleep 0.02; done; fi\nexec "+s.shared.pg.path+"/pg_dump \"$@\"\n")
			if err := os.Chmod(s.dir+"/still/pg_dump", 0o700); err != nil { //nolint:gosec // it is run
				s.t.Fatal(err)
			}
		},
		act: func(s *scene) {
			// What a restart does to sessions: every one of this database ends. The server is the other scenes', too.
			done := make(chan struct{})
			go func() {
				defer close(done)
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(s.dir + "/dumping"); err == nil {
						postgrestest.SQL(s.t, s.shared.pg.server, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+s.db+"'")
						s.write("ended", "")
						return
					}
				}
			}()
			s.does(exitPartial, "", "backup", "run", "fast")
			<-done
		},
		end: func(s *scene) { s.move(s.dir+"/pg-was", s.dir+"/pg") }},
	"Dumps: PostgreSQL is down": {on: withDatabase, code: exitPartial,
		begin: func(s *scene) {
			s.move(s.dir+"/pg", s.dir+"/pg-up")
			s.write("pg", "export PGHOST="+s.dir+" PATH="+s.shared.pg.path+":$PATH\n")
		},
		end: func(s *scene) { s.move(s.dir+"/pg-up", s.dir+"/pg") }},
	"Dumps: PostgreSQL is of another major version": {on: withDatabase, code: exitPartial,
		begin: func(s *scene) {
			s.edit("services/notes/service.yaml", fmt.Sprint("major: ", s.shared.pg.server.Major), "major: 99")
		},
		end: func(s *scene) {
			s.edit("services/notes/service.yaml", "major: 99", fmt.Sprint("major: ", s.shared.pg.server.Major))
		}},
	"Dumps: a database is gone": {on: withDatabase, code: exitPartial,
		begin: func(s *scene) { s.sql("postgres", "ALTER DATABASE "+s.db+" RENAME TO "+s.db+"_away") },
		end:   func(s *scene) { s.sql("postgres", "ALTER DATABASE "+s.db+"_away RENAME TO "+s.db) }},
	"Dumps: most rows of a database are gone": {on: withDatabase, code: exitPartial,
		begin: func(s *scene) { s.sql(s.db, "DELETE FROM a WHERE n > 10") },
		end:   func(s *scene) { s.sql(s.db, "INSERT INTO a "+rows+" WHERE n > 10") }},
}

func with(p play, f func(*play)) play { f(&p); return p }

func dumpInstead(script string) play {
	return play{code: exitPartial, begin: func(s *scene) { s.write("dump-instead", script) }, end: func(s *scene) { s.remove("dump-instead") }}
}

func composeInstead(word, script string) play {
	return play{code: exitPartial,
		begin: func(s *scene) {
			s.edit("compose", "case \"$1\" in", "case \"$1\" in "+word+") "+script+";;")
			os.Chmod(s.dir+"/compose", 0o755)
		},
		end: func(s *scene) {
			s.edit("compose", "case \"$1\" in "+word+") "+script+";;", "case \"$1\" in")
			os.Chmod(s.dir+"/compose", 0o755)
		}}
}

// A database is a PostgreSQL that all scenes share.
type database struct {
	server postgres.Server
	path   string // where its programs are
	host   string
}

func newDatabase(t *testing.T) database {
	t.Helper()
	d := database{server: postgrestest.Start(t)}
	for _, kv := range d.server.Env {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "PGHOST":
			d.host = value
		case "PATH":
			d.path, _, _ = strings.Cut(value, ":")
		}
	}
	return d
}

const rows = "SELECT n, md5(n::text) FROM generate_series(1, 60000) n"

// withDatabase gives the service a database of its own in the shared server, reached through its "container".
func withDatabase(s *scene) {
	pg := s.shared.pg
	s.db = fmt.Sprint("shop", s.shared.next.Add(1))
	s.sql("postgres", "CREATE DATABASE "+s.db)
	s.sql(s.db, "CREATE TABLE a AS "+rows)
	s.write("pg", "export PGHOST="+pg.host+" PATH="+pg.path+":$PATH\n")
	s.edit("services/notes/service.yaml", `back: ["true"]}]`, fmt.Sprintf(`back: ["true"]}, {name: postgres, kind: postgres, container: web, user: tester, databases: [%s], major: %d}]`, s.db, pg.server.Major))
	restictest.Fill(s.t, s.repo.URL)
}

func (s *scene) sql(database, text string) {
	s.t.Helper()
	postgrestest.SQL(s.t, s.shared.pg.server, database, text)
}
