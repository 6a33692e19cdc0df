//go:build prove

package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

func forbidden(times int) s3proxy.Fault { return s3proxy.Fault{Kind: s3proxy.Forbidden, Times: times} }

// failing has the storage fail as it says until it is healed.
func failing(f s3proxy.Fault) play {
	return play{on: onS3, begin: inject(f), end: healed, bounds: probing(8 * time.Second)}
}

// probing says how long the storage is asked. What it says has to arrive in that time where people are told of it, and S3's client tries
// some refusals for seconds before it passes them on.
func probing(d time.Duration) func(p *patience) { return func(p *patience) { p.Bounds.Probe = d } }

const untilItSays = 60 * time.Second

// passing has it fail for a moment, while something new is sent.
func passing(f s3proxy.Fault) play {
	return play{on: onS3, end: healed, begin: func(s *scene) {
		restictest.Write(s.t, s.source, map[string]string{"new.md": strings.Repeat("something new ", 1000)})
		inject(f)(s)
	}}
}

// otherKey gives the machine another key.
func otherKey(text string) play {
	return play{on: onS3, bounds: probing(untilItSays),
		begin: func(s *scene) { s.write("backup.env", text) },
		end: func(s *scene) {
			s.write("backup.env", "AWS_ACCESS_KEY_ID=backup\nAWS_SECRET_ACCESS_KEY="+restictest.Secret("backup")+"\n")
		}}
}

var soon = time.Now().AddDate(0, 0, 5).Format(time.DateOnly)

var stores = map[string]play{
	"Storage: nobody answers": with(failing(s3proxy.Fault{}), func(p *play) {
		var url string
		p.bounds = probing(untilItSays)
		p.begin = func(s *scene) { url = s.repo.URL; s.edit("homelab.yaml", url, "s3:http://127.0.0.1:1/homelab/restic") }
		p.end = func(s *scene) { s.edit("homelab.yaml", "s3:http://127.0.0.1:1/homelab/restic", url) }
	}),
	"Storage: it answers 500 again and again":      failing(s3proxy.Fault{Kind: s3proxy.InternalError}),
	"Storage: it answers 503 again and again":      failing(s3proxy.Fault{Kind: s3proxy.SlowDown}),
	"Storage: it answers 403":                      with(failing(s3proxy.Fault{Kind: s3proxy.Forbidden}), func(p *play) { p.bounds = probing(untilItSays) }),
	"Storage: it takes requests and never answers": failing(s3proxy.Fault{Kind: s3proxy.Hang}),
	"Storage: it answers one byte a second":        failing(s3proxy.Fault{Kind: s3proxy.Drip}),
	"Storage: it cuts every answer in the middle":  failing(s3proxy.Fault{Kind: s3proxy.Cut, Action: s3proxy.GetObject}),
	"Storage: it answers 500 while data are sent": with(passing(s3proxy.Fault{Kind: s3proxy.InternalError, Action: s3proxy.PutObject, Object: "*/data/*"}),
		func(p *play) { p.bounds = func(x *patience) { x.Bounds.Still = 12 * time.Second } }),
	"Storage: it answers 500 twice":                      passing(s3proxy.Fault{Kind: s3proxy.InternalError, Action: s3proxy.PutObject, Times: 2}),
	"Storage: it answers 503 twice":                      passing(s3proxy.Fault{Kind: s3proxy.SlowDown, Action: s3proxy.PutObject, Times: 2}),
	"Storage: it keeps an object and its answer is lost": passing(s3proxy.Fault{Kind: s3proxy.Lost, Action: s3proxy.PutObject, Object: "*/data/*", Times: 1}),
	"Storage: the key has ended":                         with(failing(s3proxy.Fault{Kind: s3proxy.Expired, Role: "backup"}), func(p *play) { p.bounds = probing(untilItSays) }),
	"Storage: the key may only read":                     otherKey("AWS_ACCESS_KEY_ID=restore\nAWS_SECRET_ACCESS_KEY=" + restictest.Secret("restore") + "\n"),
	"Storage: the storage does not know the key":         otherKey("AWS_ACCESS_KEY_ID=nobody\nAWS_SECRET_ACCESS_KEY=nothing-at-all\n"),
	"Storage: the key's secret is another":               otherKey("AWS_ACCESS_KEY_ID=backup\nAWS_SECRET_ACCESS_KEY=another-secret\n"),
	"Storage: the file with the key is missing":          with(otherKey(""), func(p *play) { p.begin = func(s *scene) { os.Remove(s.dir + "/backup.env") } }),
	"Storage: a key ends within two weeks": {
		begin: func(s *scene) {
			s.edit("homelab.yaml", "backup: {file: "+s.dir+"/key.env}", "backup: {file: "+s.dir+"/key.env, expires: "+soon+"}")
		},
		act: func(s *scene) { s.does(1, "ends on", "watch") },
		end: func(s *scene) {
			s.edit("homelab.yaml", ", expires: "+soon, "")
		},
		again: []string{"watch"}},
}

// off sets the storage's clock, so that this machine's is as far off the other way.
func off(by time.Duration) play {
	return play{on: onS3, bounds: probing(untilItSays),
		begin: func(s *scene) { s.off.Store(int64(by)) },
		end:   func(s *scene) { s.off.Store(0) }}
}

// stamped has a machine whose clock is off make a backup, which is found when the clock is right again.
func stamped(by string) play {
	return play{
		begin: func(s *scene) {
			s.write("instead-restic-backup", `shift; exec `+s.repo.Binary+` backup --time "$(date -d '`+by+`' '+%F %T')" "$@"`)
		},
		end: func(s *scene) {
			s.remove("instead-restic-backup")
			s.does(exitRefused, "refuse maintenance", "backup", "maintenance", "fast")
			s.does(0, "snapshots kept", "backup", "maintenance", "fast", "--accept")
			s.heard()
		}}
}

var clocks = map[string]play{
	"Clocks: 20 minutes ahead of the storage": off(-20 * time.Minute),
	"Clocks: 20 minutes behind the storage":   off(20 * time.Minute),
	"Clocks: 10 minutes ahead of the storage, which still takes it": with(off(-10*time.Minute-20*time.Second), func(p *play) {
		p.act = func(s *scene) { s.does(1, "10m ahead", "watch") }
		p.again = []string{"watch"}
	}),
	"Clocks: 20 minutes ahead while a backup was made":  stamped("+20 minutes"),
	"Clocks: a day ahead while a backup was made":       stamped("+1 day"),
	"Clocks: 20 minutes behind while a backup was made": stamped("-20 minutes"),
	"Clocks: a day behind while a backup was made":      stamped("-1 day"),
}

// answering has Kuma (or Discord) answer a status, some times (0: always).
func answering(kuma bool, status, times int, body string) func(s *scene) {
	return func(s *scene) {
		n := 0
		s.answers(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/api/push/") != kuma {
				return false
			}
			if n++; times > 0 && n > times {
				return false
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
			return true
		})
	}
}

var tellings = map[string]play{
	"Telling: Uptime Kuma is down": {pushed: "-", begin: answering(true, 502, 0, "<html>"),
		act: func(s *scene) { s.does(0, "files", "watch") },
		end: func(s *scene) { s.answers(nil) }, again: []string{"watch"}},
	"Telling: Uptime Kuma has forgotten the monitors": {pushed: "-", begin: answering(true, 404, 0, `{"ok":false,"msg":"Monitor not found or not active."}`),
		act: func(s *scene) { s.does(0, "homelab kuma sync", "watch") },
		end: func(s *scene) { s.answers(nil) }, again: []string{"watch"}},
	"Telling: Discord answers 429": with(sources["Sources: a folder is missing"], func(p *play) {
		begin := p.begin
		p.begin = func(s *scene) { begin(s); answering(false, 429, 2, `{"retry_after": 0.05}`)(s) }
	}),
	"Telling: Discord is away from the beginning to the end": with(sources["Sources: a folder is missing"], func(p *play) {
		begin, end := p.begin, p.end
		p.bounds = func(x *patience) { x.Tell = 200 * time.Millisecond }
		p.begin = func(s *scene) { begin(s); answering(false, 500, 0, "")(s) }
		p.special = func(s *scene) bool {
			pushes, posts := s.heard()
			return strings.Contains(pushes, "down") && posts == ""
		}
		p.end = func(s *scene) {
			end(s)
			s.hurry(p.bounds)
			s.does(0, "1 of 1 services safe", "backup", "run", "fast")
			s.hurry(nil)
			s.answers(nil)
			s.heard()
			s.does(0, "files", "watch")
			if _, posts := s.heard(); strings.Count(posts, "🟢") != 1 || !strings.Contains(posts, "nobody could be told that it was not") {
				s.t.Errorf("afterwards, posted %q", posts)
			}
		}
	}),
	"Telling: the webhook is deleted": with(sources["Sources: a folder is missing"], func(p *play) {
		begin := p.begin
		p.begin = func(s *scene) { begin(s); answering(false, 404, 0, `{"code":10015}`)(s) }
		p.act = func(s *scene) {
			s.does(exitPartial, "copy the webhook's URL again", "backup", "run", "fast")
			s.answers(nil)
			s.does(exitPartial, "", "backup", "run", "fast")
		}
	}),
}
