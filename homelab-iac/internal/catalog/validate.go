package catalog

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"home.arpa/lab/internal/strict"
)

// Validate reports everything that is wrong with one description, each with its cure.
func (s Service) Validate() strict.Faults {
	var c check
	c.must(s.About != "", "about", "say in one sentence what this service is for")
	c.must(s.Host != "", "host", "name the machine that it runs on")
	if s.Nothing != "" {
		c.must(len(s.Backup.RPO)+len(s.Backup.Paths)+len(s.Backup.Dumps) == 0, "nothing", "says that there is nothing to back up, and backup names something: remove one")
	} else {
		s.backup(&c)
		s.restore(&c)
	}
	for i, l := range s.LeftOut {
		c.must(path.IsAbs(l.Path), fmt.Sprintf("left_out[%d].path", i), "%q is not absolute", l.Path)
		c.must(l.Reason != "", fmt.Sprintf("left_out[%d].reason", i), "say why %s needs no backup", l.Path)
		c.must(l.Mode != "" || l.UID == 0 && l.GID == 0, fmt.Sprintf("left_out[%d].mode", i), "owners are for folders that are made: give the mode, \"0700\"")
	}
	for i, e := range s.Seed {
		c.must(e.File != "" && path.Base(e.File) == e.File, fmt.Sprintf("seed[%d].file", i), "%q is no file of the service's folder", e.File)
		c.must(slices.ContainsFunc(s.Backup.Paths, func(p Path) bool { return below(e.Path, p.Path) }), fmt.Sprintf("seed[%d].path", i), "%q is in none of backup.paths: what somebody makes of it would be lost", e.Path)
		c.must(e.Mode != "", fmt.Sprintf("seed[%d].mode", i), "give the mode, \"0640\"")
	}
	s.volumes(&c)
	s.containers(&c)
	return c.faults
}

type check struct{ faults strict.Faults }

func (c *check) must(ok bool, key, format string, args ...any) {
	if !ok {
		c.faults = append(c.faults, strict.Fault{Key: key, Text: fmt.Sprintf(format, args...)})
	}
}

func (s Service) backup(c *check) {
	b := s.Backup
	c.must(len(b.RPO) > 0, "backup.rpo", "name a tier and how old its newest snapshot may become ({fast: 26h}), or say under nothing: why there is nothing to back up")
	for tier, age := range b.RPO {
		t, err := TierNamed(tier)
		c.must(err == nil, "backup.rpo", "%v", err)
		c.must(err != nil || age > t.Every, "backup.rpo."+tier, "%s is not longer than the %s between two runs: every day would alarm", age, t.Every)
	}
	c.must(len(b.Paths)+len(b.Dumps) > 0, "backup", "names neither paths nor dumps")
	for i, p := range b.Paths {
		key := fmt.Sprintf("backup.paths[%d]", i)
		c.must(path.IsAbs(p.Path) && path.Clean(p.Path) == p.Path && p.Path != "/", key+".path", "%q is not an absolute, clean path", p.Path)
		mode, err := strconv.ParseUint(p.Mode, 8, 32)
		c.must(err == nil && len(p.Mode) == 4 && mode <= 0o7777, key+".mode", "%q is not a mode: write four octal digits, \"0750\"", p.Mode)
		c.must(p.UID >= 0 && p.GID >= 0, key, "owners are numbers from 0")
		for j, other := range b.Paths {
			c.must(i == j || !below(p.Path, other.Path), key+".path", "%s lies in %s already", p.Path, other.Path)
		}
	}
	for i, d := range b.Dumps {
		d.validate(c, fmt.Sprintf("backup.dumps[%d]", i))
	}
	for _, name := range b.Stop {
		c.must(s.Compose.Has(name), "backup.stop", "compose.yaml has no container %q", name)
	}
}

func (d Dump) validate(c *check, key string) {
	c.must(d.Name != "" && path.Base(d.Name) == d.Name && d.Name != "." && d.Name != "..", key+".name", "%q is not a file name", d.Name)
	switch d.Kind {
	case "postgres":
		c.must(d.User != "", key+".user", "name PostgreSQL's superuser")
		c.must(d.Major >= 14, key+".major", "%d: name PostgreSQL's major version, 14 or later: a dump loads only where client and server agree", d.Major)
		c.must(len(d.Run)+len(d.Back) == 0, key, "run and back are for kind command")
	case "command":
		c.must(len(d.Run) > 0, key+".run", "name the command that writes {file}")
		c.must(len(d.Back) > 0, key+".back", "name the command that puts {file} back: a dump that nobody can load is no backup")
	case "fact":
		c.must(len(d.Run) > 0, key+".run", "name the command that prints what must be the same after a restore")
		c.must(len(d.Back) == 0, key+".back", "nothing is put back from a fact: it is compared")
	default:
		c.must(false, key+".kind", "%q: there are postgres, command and fact", d.Kind)
	}
}

func (s Service) restore(c *check) {
	r := s.Restore
	c.must(r.RTO > 0, "restore.rto", "say how long a restore may take")
	c.must(r.Order > 0, "restore.order", "give a place in the order of restores, from 1")
	c.must(len(r.Holds) > 0, "restore.holds", "say what must be true after a restore")
	for i, h := range r.Holds {
		n := 0
		for _, set := range []bool{h.Path != "", h.HTTP != "", len(h.Run) > 0} {
			if set {
				n++
			}
		}
		c.must(n == 1 && h.What != "", fmt.Sprintf("restore.holds[%d]", i), "needs what, and one of path, http and run")
	}
	for i, a := range r.After {
		c.must(a.What != "" && len(a.Run) > 0, fmt.Sprintf("restore.after[%d]", i), "needs what and run")
	}
	for i, a := range r.Drill {
		c.must(a.What != "" && len(a.Run) > 0, fmt.Sprintf("restore.drill[%d]", i), "needs what and run")
	}
}

// volumes checks that nothing that a container writes is forgotten.
func (s Service) volumes(c *check) {
	known := []string{}
	for _, p := range s.Backup.Paths {
		known = append(known, p.Path)
	}
	for _, l := range s.LeftOut {
		known = append(known, l.Path)
	}
	for _, k := range s.Compose.Containers {
		for _, v := range k.Volumes {
			key := "compose.yaml: " + k.Name + ": volume " + v.Source
			switch {
			case strings.HasPrefix(v.Source, "./"):
				c.must(v.ReadOnly, key, "a file of this folder must be mounted read-only (:ro): what is written belongs below /srv")
			case !path.IsAbs(v.Source):
				c.must(false, key, "is a named volume, whose files no contract can name: mount a folder below /srv/%s", s.Name)
			default:
				c.must(slices.ContainsFunc(known, func(p string) bool { return below(v.Source, p) }), key,
					"is in no contract: add it to backup.paths, or to left_out with the reason")
			}
		}
	}
}

// containers checks what every container must have.
func (s Service) containers(c *check) {
	for _, k := range s.Compose.Containers {
		key := "compose.yaml: " + k.Name
		c.must(k.Health, key, "has no healthcheck")
		c.must(k.Memory != "" && k.CPUs != "", key, "has no limits: set mem_limit and cpus")
		_, tag, digest := SplitImage(k.Image)
		c.must(tag != "" && tag != "latest", key, "image %q names no version: write name:tag", k.Image)
		c.must(digest == "" || digestForm.MatchString(digest), key, "%q is not a digest", digest)
		for _, p := range k.Ports {
			c.must(p.Comment != "", key, "port %s has no comment that says who needs it", p.Text)
			c.must(p.Private(), key, "port %s listens everywhere, and Docker publishes past the firewall: bind it to 127.0.0.1 or ${TAILNET_ADDRESS:?}", p.Text)
		}
	}
}

// below says whether p is dir or lies in it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
