// Package restore makes the way back: one Plan, which printed is the guide, run is the restore, and run on a clean machine and
// compared is the drill. Its steps are commands that a person could type.
package restore

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// A Plan brings one service back.
type Plan struct {
	Service  string        `json:"service"`
	Tier     string        `json:"tier"`
	Snapshot string        `json:"snapshot"` // its ID, or a word of the shell in the guide
	Made     time.Time     `json:"made"`     // the snapshot; zero in the guide
	Bytes    int64         `json:"bytes"`
	Files    int64         `json:"files"`
	RTO      time.Duration `json:"rto"`
	Steps    []Step        `json:"steps"`
	Kept     []string      `json:"kept"` // where what stood there is afterwards, if anything did
}

// Phases of a restore, in order. Nothing that is in use is touched before somebody was asked.
const (
	Fetch    = "fetch"    // into staging, each file read back
	Verify   = "verify"   // dumps against their manifests
	Database = "database" // each dump into a new database, which is compared
	Stop     = "stop"     // the service
	Swap     = "swap"     // staging and what stands there, by renaming; what stood there is kept
	Compare  = "compare"  // only in a drill: what came back is measured before a program touches it
	Start    = "start"
	Prove    = "prove" // what must hold
	Clean    = "clean"
)

// A Step is one command.
type Step struct {
	Phase string        `json:"phase"`
	What  string        `json:"what"`
	Argv  []string      `json:"argv"`
	Stdin string        `json:"stdin,omitempty"` // a file
	Ask   bool          `json:"ask,omitempty"`   // it changes what is in use
	Limit time.Duration `json:"-"`
}

// A Site is what a plan must know of the machine.
type Site struct {
	Dumps   string
	Compose []string
	Restic  string
	Homelab []string // this program, for what no other can do
	Stamp   string   // goes into the names of what is kept
	Measure string   // a folder for measurements of what came back; empty: nothing is measured
}

// A Source is what a plan brings back.
type Source struct {
	Tier     string
	Snapshot restic.Snapshot
	// Manifests of the PostgreSQL dumps, by the dump's name.
	Manifests     map[string]postgres.Manifest
	DatabasesOnly bool
}

// For makes the plan of one service. Pure.
func For(s catalog.Service, from Source, at Site) Plan {
	p := Plan{Service: s.Name, Tier: from.Tier, Snapshot: from.Snapshot.ID, Made: from.Snapshot.Time, Bytes: from.Snapshot.Summary.Bytes,
		Files: from.Snapshot.Summary.Files, RTO: s.Restore.RTO}
	b := &builder{s: s, from: from, at: at, plan: &p, dumps: path.Join(at.Dumps, s.Name)}
	b.fetch()
	for _, d := range s.Databases() {
		b.load(d)
	}
	if names := b.others(); len(names) > 0 {
		b.step(Stop, "stop the service, not its database", b.compose(append([]string{"stop"}, names...)...), ask)
	}
	b.swap()
	if at.Measure != "" && len(b.paths()) > 0 {
		b.step(Compare, "measure what came back", append(slices.Clone(at.Homelab), "measure", "--tags", s.Name, "--to", path.Join(at.Measure, s.Name+".json")))
	}
	if len(s.Compose.Containers) > 0 {
		b.step(Start, "start the service and wait until it is healthy", b.compose("up", "--detach", "--wait"))
	}
	for _, a := range s.Restore.After {
		b.step(Start, a.What, s.Expand(a.Run, at.Compose, ""))
	}
	for _, h := range s.Restore.Holds {
		b.step(Prove, h.What, hold(h, s, at.Compose))
	}
	if !from.DatabasesOnly {
		for _, f := range s.Facts() {
			b.step(Prove, "compare "+f.Name+" with what it was", []string{"sh", "-c", Line(s.Expand(f.Run, at.Compose, "")) + " | diff " + Quote(path.Join(b.dumps, f.Name)) + " -"})
		}
	}
	if len(s.Backup.Dumps) > 0 {
		b.step(Clean, "remove the dumps", []string{"find", b.dumps, "-mindepth", "1", "-delete"})
	}
	return p
}

// Proof asks again what must hold of a service that is there. With drill it also does what changes data. Pure.
func Proof(s catalog.Service, at Site, drill bool) Plan {
	p := Plan{Service: s.Name, RTO: s.Restore.RTO}
	b := &builder{s: s, at: at, plan: &p}
	for _, h := range s.Restore.Holds {
		b.step(Prove, h.What, hold(h, s, at.Compose))
	}
	if drill {
		for _, a := range s.Restore.Drill {
			b.step(Prove, a.What, s.Expand(a.Run, at.Compose, ""))
		}
	}
	return p
}

type builder struct {
	s     catalog.Service
	from  Source
	at    Site
	plan  *Plan
	dumps string
}

type option func(*Step)

func ask(s *Step) { s.Ask = true }

func stdin(file string) option { return func(s *Step) { s.Stdin = file } }

// Limits of steps: hours for what moves data, minutes for what does not.
const (
	longLimit  = 12 * time.Hour
	shortLimit = 10 * time.Minute
)

func (b *builder) step(phase, what string, argv []string, options ...option) {
	s := Step{Phase: phase, What: what, Argv: argv, Limit: shortLimit}
	if phase == Fetch || phase == Database || phase == Verify || phase == Compare {
		s.Limit = longLimit
	}
	for _, o := range options {
		o(&s)
	}
	b.plan.Steps = append(b.plan.Steps, s)
}

func (b *builder) compose(words ...string) []string {
	return b.s.Expand(append([]string{"{compose}"}, words...), b.at.Compose, "")
}

// staging is beside what it will replace, so that the swap is a rename within one file system.
func (b *builder) staging(p string) string {
	return path.Join(path.Dir(p), ".homelab-restore-"+path.Base(p))
}

func (b *builder) paths() []catalog.Path {
	if b.from.DatabasesOnly {
		return nil
	}
	return b.s.Backup.Paths
}

func (b *builder) fetch() {
	for _, p := range b.paths() {
		dir := b.staging(p.Path)
		b.step(Fetch, "make an empty place for "+p.Path, shell("rm -rf %s && mkdir -p %s", dir, dir))
		b.step(Fetch, "bring "+p.Path+" there and read it back", b.restic(restic.Restore{Snapshot: b.plan.Snapshot, Path: p.Path, Target: dir}.Args()))
	}
	if len(b.s.Backup.Dumps) == 0 {
		return
	}
	b.step(Fetch, "make an empty place for the dumps", shell("mkdir -p %s && find %s -mindepth 1 -delete", b.dumps, b.dumps))
	b.step(Fetch, "bring the dumps and read them back", b.restic([]string{"restore", b.plan.Snapshot + ":" + b.dumps, "--no-lock", "--verify", "--target", b.dumps}))
	for _, d := range b.s.Databases() {
		b.step(Verify, "compare the dump with its manifest", append(slices.Clone(b.at.Homelab), "restore", "verify-dump", path.Join(b.dumps, d.Name)))
	}
}

func (b *builder) restic(args []string) []string { return append([]string{b.at.Restic}, args...) }

// others are the containers beside the databases'.
func (b *builder) others() (names []string) {
	for _, k := range b.s.Compose.Containers {
		if !slices.ContainsFunc(b.s.Databases(), func(d catalog.Dump) bool { return d.Container == k.Name }) {
			names = append(names, k.Name)
		}
	}
	return names
}

// swap renames; only dumps of other programs are put back by those.
func (b *builder) swap() {
	for _, p := range b.paths() {
		dir := b.staging(p.Path)
		kept := p.Path + ".before-" + b.at.Stamp
		b.plan.Kept = append(b.plan.Kept, kept)
		b.step(Swap, "keep what stands at "+p.Path, shell("if [ -e %s ]; then mv -T %s %s; fi", p.Path, p.Path, kept), ask)
		b.step(Swap, "put the restored one in its place", []string{"mv", "-T", path.Join(dir, path.Base(p.Path)), p.Path})
		b.step(Swap, "remove the empty place", []string{"rmdir", dir})
	}
	for _, d := range b.s.Backup.Dumps {
		if d.Kind == "command" && !b.from.DatabasesOnly {
			b.step(Swap, "put "+d.Name+" back", b.s.Expand(d.Back, b.at.Compose, path.Join(b.dumps, d.Name)), ask)
		}
	}
	for _, d := range b.s.Databases() {
		for _, db := range b.from.Manifests[d.Name].Databases {
			fresh, kept := names(db, b.at)
			b.plan.Kept = append(b.plan.Kept, "database "+kept)
			b.step(Swap, "keep the database that is there", b.server(d).Rename(db.Name, kept), ask)
			b.step(Swap, "put the restored one in its place", b.server(d).Rename(fresh, db.Name))
		}
	}
}

func names(db postgres.Database, at Site) (fresh, kept string) {
	return db.Name + "_restoring", db.Name + "_before_" + at.Stamp
}

func (b *builder) server(d catalog.Dump) postgres.Server {
	return postgres.Server{Exec: b.s.Inside(b.at.Compose, d.Container), User: d.User, Major: d.Major}
}

// load brings a PostgreSQL dump into new databases beside the old ones, and compares them with what was dumped.
func (b *builder) load(d catalog.Dump) {
	server, dir := b.server(d), path.Join(b.dumps, d.Name)
	if d.Container != "" {
		b.step(Database, "start PostgreSQL alone", b.compose("up", "--detach", "--wait", d.Container))
	}
	m := b.from.Manifests[d.Name]
	b.step(Database, "bring the roles back, with the passwords that they had", server.LoadGlobals(), stdin(path.Join(dir, m.Globals.Name)), ask)
	for _, db := range m.Databases {
		fresh, _ := names(db, b.at)
		b.step(Database, "remove what an earlier attempt left", server.Drop(fresh))
		b.step(Database, "make an empty database like the old one", server.Create(db, fresh))
		b.step(Database, "load the dump into it", server.Load(fresh), stdin(path.Join(dir, db.File.Name)))
		b.step(Database, "make the planner's statistics", server.Analyze(fresh))
		b.step(Database, "compare every table with the manifest", append(slices.Clone(b.at.Homelab), "restore", "compare-database", b.s.Name, d.Name, db.Name, fresh))
	}
}

// hold makes a check into a command.
func hold(h catalog.Hold, s catalog.Service, compose []string) []string {
	switch {
	case h.Path != "" && h.Least > 0:
		return shell(`[ "$(find %s -mindepth 1 | head -n `+strconv.Itoa(h.Least)+` | wc -l)" -ge `+strconv.Itoa(h.Least)+` ]`, h.Path)
	case h.Path != "":
		return []string{"test", "-e", h.Path}
	case h.HTTP != "":
		// For three minutes: a program that has just come back may need them.
		get := "curl --silent --show-error --location --max-time 10 --retry 36 --retry-delay 5 --retry-all-errors --fail " + Quote(h.HTTP)
		if h.Contains != "" {
			return []string{"sh", "-c", get + " | grep --fixed-strings " + Quote(h.Contains)}
		}
		return []string{"sh", "-c", get + " >/dev/null"}
	}
	argv := s.Expand(h.Run, compose, "")
	if h.Contains != "" {
		return []string{"sh", "-c", Line(argv) + " | grep --fixed-strings " + Quote(h.Contains)}
	}
	return argv
}

// shell makes a command line with its words quoted.
func shell(format string, words ...string) []string {
	quoted := make([]any, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return []string{"sh", "-c", fmt.Sprintf(format, quoted...)}
}

const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%"

// variables of the guide; a shell may fill them in.
var variables = []string{"$SNAPSHOT", "$STAMP"}

// Quote makes one word for the shell. The guide's variables stay open to it.
func Quote(w string) string {
	rest := w
	for _, v := range variables {
		rest = strings.ReplaceAll(rest, v, "")
	}
	switch {
	case w != "" && strings.Trim(w, plainWord) == "":
		return w
	case rest != w && strings.Trim(rest, plainWord) == "":
		return `"` + w + `"`
	}
	w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	for _, v := range variables {
		w = strings.ReplaceAll(w, v, `'"`+v+`"'`)
	}
	return w
}

// Line is a command as a person types it.
func Line(argv []string) string {
	if len(argv) == 3 && argv[0] == "sh" && argv[1] == "-c" {
		return argv[2]
	}
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = Quote(w)
	}
	return strings.Join(words, " ")
}

// Line is the step as a person types it.
func (s Step) Line() string {
	if s.Stdin != "" {
		return Line(s.Argv) + " < " + Quote(s.Stdin)
	}
	return Line(s.Argv)
}

// File makes the plan for one file or folder of a service: it is put beside the place where it was, and nothing is replaced.
func File(s catalog.Service, from Source, at Site, file string) Plan {
	p := Plan{Service: s.Name, Tier: from.Tier, Snapshot: from.Snapshot.ID, Made: from.Snapshot.Time}
	b := &builder{s: s, from: from, at: at, plan: &p}
	dir := b.staging(file)
	to := file + ".restored-" + at.Stamp
	b.step(Fetch, "make an empty place", shell("rm -rf %s && mkdir -p %s", dir, dir))
	b.step(Fetch, "bring it there and read it back", b.restic(restic.Restore{Snapshot: p.Snapshot, Path: file, Target: dir}.Args()))
	b.step(Swap, "put it beside what is there", []string{"mv", "-n", "-T", path.Join(dir, path.Base(file)), to})
	b.step(Clean, "remove the empty place", []string{"rmdir", dir})
	p.Kept = []string{to}
	return p
}

// Owning finds the service that a file belongs to.
func Owning(all []catalog.Service, file string) (catalog.Service, bool) {
	for _, s := range all {
		for _, p := range s.Backup.Paths {
			if file == p.Path || strings.HasPrefix(file, p.Path+"/") {
				return s, true
			}
		}
	}
	return catalog.Service{}, false
}

// Choose picks the services that tags mean, in the order in which they are restored. An unknown tag is an error.
func Choose(all []catalog.Service, tags []string) ([]catalog.Service, error) {
	var out []catalog.Service
	for _, tag := range tags {
		if !slices.ContainsFunc(all, func(s catalog.Service) bool { return s.HasTag(tag) }) {
			return nil, fmt.Errorf("choose services: no service that is backed up has the tag %q; there are %s", tag, strings.Join(Tags(all), ", "))
		}
	}
	for _, s := range all { // Load sorted them
		if slices.ContainsFunc(tags, s.HasTag) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Tags are all that Choose knows.
func Tags(all []catalog.Service) []string {
	tags := []string{"all", "dbs"}
	for _, s := range all {
		if s.Nothing == "" {
			tags = append(tags, s.Name)
			tags = append(tags, s.Restore.Tags...)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// OnlyDatabases says whether tags mean no more of a service than its databases.
func OnlyDatabases(s catalog.Service, tags []string) bool {
	return !slices.ContainsFunc(tags, func(t string) bool { return t != "dbs" && s.HasTag(t) })
}
