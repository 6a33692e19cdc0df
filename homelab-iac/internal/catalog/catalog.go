// Package catalog reads the descriptions of the services: what each one runs, which of its data matter, how they are
// dumped, backed up and restored, and what must hold afterwards. Cron jobs, monitors, the restore guide and the proof of a
// restore are made from it, so that a service is described once.
package catalog

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/internal/strict"
)

// A Service is one folder of homelab-iac/services.
type Service struct {
	Name    string  // the folder's name
	About   string  `yaml:"about"`    // one sentence
	Host    string  `yaml:"host"`     // the machine that it runs on
	Nothing string  `yaml:"nothing"`  // why there is nothing to back up; then Backup is empty
	Backup  Backup  `yaml:"backup"`   //
	LeftOut []Left  `yaml:"left_out"` // volumes that are not backed up, each with its reason
	Seed    []Seed  `yaml:"seed"`     // files that are put where there are none, so that it can start before its data are there
	Restore Restore `yaml:"restore"`
	Compose Compose // compose.yaml; empty where the service is a folder and no program
}

// Backup is what has to be kept of a service.
type Backup struct {
	RPO   map[string]time.Duration `yaml:"rpo"`   // by tier: how old the newest good snapshot may become
	Paths []Path                   `yaml:"paths"` // files as they lie
	Dumps []Dump                   `yaml:"dumps"` // what programs write for the backup
	Stop  []string                 `yaml:"stop"`  // containers that stand still while the files are read
}

// A Path is a folder or file that is backed up as it lies. Owners are numbers: names differ between machines.
type Path struct {
	Path    string   `yaml:"path"` // absolute
	UID     int      `yaml:"uid"`
	GID     int      `yaml:"gid"`
	Mode    string   `yaml:"mode"`    // of the path itself, octal: "0750"
	Exclude []string `yaml:"exclude"` // restic patterns below Path, each a thing that is made anew by itself
}

// A Dump is written by a program before the backup, into the service's own dump folder, and removed afterwards.
type Dump struct {
	Name      string   `yaml:"name"`      // the file, or the folder of a PostgreSQL dump
	Kind      string   `yaml:"kind"`      // postgres, command, or fact: what Run prints, which must be the same after a restore
	Container string   `yaml:"container"` // where PostgreSQL's programs run, so that they have the server's version; empty: on the host
	User      string   `yaml:"user"`      // PostgreSQL superuser
	Databases []string `yaml:"databases"` // empty: all
	Major     int      `yaml:"major"`     // PostgreSQL's major version, checked before dumping and before restoring
	Run       []string `yaml:"run"`       // command: writes {file}; fact: prints it
	Back      []string `yaml:"back"`      // command: puts {file} back
}

// A Left is a volume that is not backed up. With a mode it is a folder that must be there, with these owners, before the service starts.
type Left struct {
	Path   string `yaml:"path"`
	Reason string `yaml:"reason"`
	UID    int    `yaml:"uid"`
	GID    int    `yaml:"gid"`
	Mode   string `yaml:"mode"`
}

// A Seed is a file of the service's folder that is put to a path once.
type Seed struct {
	File string `yaml:"file"`
	Path string `yaml:"path"`
	UID  int    `yaml:"uid"`
	GID  int    `yaml:"gid"`
	Mode string `yaml:"mode"`
}

// Restore is the way back.
type Restore struct {
	Order int           `yaml:"order"` // smaller first: databases before what needs them
	RTO   time.Duration `yaml:"rto"`   // from the first command to the last proof
	Tags  []string      `yaml:"tags"`  // besides the service's name, which is always one
	After []Action      `yaml:"after"` // run once the data are in place and the service is up
	Holds []Hold        `yaml:"holds"` // what must be true then
	Drill []Action      `yaml:"drill"` // what must work too, and changes data: only a drill runs it
}

// An Action is a command with its reason.
type Action struct {
	What string   `yaml:"what"`
	Run  []string `yaml:"run"`
}

// A Hold is something that must be true after a restore: exactly one of Path, HTTP and Run is set.
type Hold struct {
	What     string   `yaml:"what"`
	Path     string   `yaml:"path"`     // exists; a folder has at least Least entries below it
	Least    int      `yaml:"least"`    //
	HTTP     string   `yaml:"http"`     // answers with Status (0: 200) and Contains
	Status   int      `yaml:"status"`   //
	Contains string   `yaml:"contains"` // in the body, or in what Run prints
	Run      []string `yaml:"run"`      // exits with 0
}

// A Tier is a schedule with a repository of its own.
type Tier struct {
	Name     string
	Schedule string // cron: of the backups,
	Checks   string // and of the checks
	Prune    string // and, where the maintenance key is, of forget and prune
	Daily    int    // snapshots kept
	Weekly   int
	Monthly  int
	// Within is never forgotten, whatever the counts say: with counts alone, one who can only add snapshots could push out
	// the real ones (restic's manual, "Security considerations in append-only mode").
	Within string
	Late   time.Duration // when nobody says otherwise: how old the newest good snapshot may become
	// Every is the distance of two runs; a group that grows faster than this is looked at before anything is forgotten.
	Every time.Duration
}

const day = 24 * time.Hour

// Tiers are the two that there are.
var Tiers = []Tier{
	{Name: "fast", Schedule: "15 3 * * *", Checks: "45 5 * * *", Prune: "15 6 * * 6", Daily: 7, Weekly: 4, Monthly: 3, Within: "8d", Late: 26 * time.Hour, Every: day},
	{Name: "slow", Schedule: "15 4 * * 0", Checks: "45 7 * * 1", Prune: "15 8 1 */3 *", Weekly: 4, Monthly: 12, Within: "30d", Late: 8 * day, Every: 7 * day},
}

// TierNamed finds a tier.
func TierNamed(name string) (Tier, error) {
	for _, t := range Tiers {
		if t.Name == name {
			return t, nil
		}
	}
	return Tier{}, fmt.Errorf("find tier %q: there are fast and slow", name)
}

// Load reads every folder of services, sorted by restore order and name. The error is a strict.Faults per file, joined.
func Load(dir fs.FS) ([]Service, error) {
	folders, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	var all []Service
	var faults []string
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		s, err := load(dir, f.Name())
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", f.Name(), err))
		}
		all = append(all, s)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("read catalog:\n%s", strings.Join(faults, "\n"))
	}
	slices.SortStableFunc(all, func(a, b Service) int { return a.Restore.Order - b.Restore.Order })
	return all, nil
}

func load(dir fs.FS, name string) (Service, error) {
	s := Service{Name: name}
	text, err := fs.ReadFile(dir, path.Join(name, "service.yaml"))
	if err != nil {
		return s, fmt.Errorf("%w: every service says there what is backed up, or why nothing is", err)
	}
	if _, faults := strict.Decode(text, &s); len(faults) > 0 {
		return s, faults
	}
	text, err = fs.ReadFile(dir, path.Join(name, "compose.yaml"))
	if err == nil {
		if s.Compose, err = parseCompose(text); err != nil {
			return s, err
		}
	}
	if faults := s.Validate(); len(faults) > 0 {
		return s, faults
	}
	return s, nil
}

// In says whether the service is backed up in a tier.
func (s Service) In(tier string) bool {
	_, ok := s.Backup.RPO[tier]
	return ok
}

// HasTag says whether a restore that names tag means this service. "dbs" means every service with a PostgreSQL dump, and
// "all" every service that has something to restore.
func (s Service) HasTag(tag string) bool {
	if s.Nothing != "" {
		return false
	}
	return tag == "all" || tag == s.Name || slices.Contains(s.Restore.Tags, tag) || tag == "dbs" && len(s.Databases()) > 0
}

// Databases are the PostgreSQL dumps.
func (s Service) Databases() []Dump {
	return slices.DeleteFunc(slices.Clone(s.Backup.Dumps), func(d Dump) bool { return d.Kind != "postgres" })
}

// Facts are the dumps that nothing is loaded from: they are compared.
func (s Service) Facts() []Dump {
	return slices.DeleteFunc(slices.Clone(s.Backup.Dumps), func(d Dump) bool { return d.Kind != "fact" })
}

// On returns the services of one host that are backed up in a tier; an empty host means all hosts.
func On(all []Service, host, tier string) []Service {
	return slices.DeleteFunc(slices.Clone(all), func(s Service) bool { return host != "" && s.Host != host || !s.In(tier) })
}

// Expand makes a command of the catalog into one that can be run: "{compose}" becomes the call of Docker Compose for this
// service, {file} the dump's path.
func (s Service) Expand(argv, compose []string, file string) []string {
	var out []string
	for _, word := range argv {
		if word != "{compose}" {
			out = append(out, strings.ReplaceAll(word, "{file}", file))
			continue
		}
		for _, c := range compose {
			out = append(out, strings.ReplaceAll(c, "{service}", s.Name))
		}
	}
	return out
}

// Inside is what stands before a program that runs in one of the service's containers; nothing where none is named.
func (s Service) Inside(compose []string, container string) []string {
	if container == "" {
		return nil
	}
	return s.Expand([]string{"{compose}", "exec", "-T", container}, compose, "")
}

// Tags are on every snapshot of the service in a tier. Host and tags are what forget groups by.
func (s Service) Tags(tier string) []string { return []string{"tier:" + tier, "svc:" + s.Name} }
