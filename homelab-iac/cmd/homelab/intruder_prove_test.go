//go:build prove

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/tree"
	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

// inLab puts the repository into a bucket of the lab's storage, with the lab's keys.
func inLab(l *lab.Lab, bucket string) func(s *scene) {
	return func(s *scene) {
		store := l.Store()
		for role, key := range map[string]lab.Key{"backup": store.Backup, "maintenance": store.Maintenance, "restore": store.Restore} {
			s.write(role+".env", strings.Join(key.Env(), "\n")+"\n")
			s.edit("homelab.yaml", role+": {file: "+s.dir+"/key.env}", role+": {file: "+s.dir+"/"+role+".env}")
		}
		old := s.repo.URL
		s.repo.URL, s.repo.Env = store.Repository(bucket, "restic"), store.Restore.Env()
		s.edit("homelab.yaml", "url: "+old, "url: "+s.repo.URL)
		for name, text := range restictest.New() {
			if err := store.Do(s.t.Context(), store.Backup, http.MethodPut, "/"+bucket+"/restic/"+name, text, nil); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// A version is one of an object's.
type version struct {
	Key, VersionId string
	IsLatest       bool
}

// versionsOf lists what the bucket keeps, of each object the newest first.
func versionsOf(t *testing.T, store *lab.Store) map[string][]version {
	t.Helper()
	all := map[string][]version{}
	next := ""
	for {
		var list bytes.Buffer
		if err := store.Do(t.Context(), store.Unlimited, http.MethodGet, "/fast?"+next+"prefix=restic%2F&versions=", nil, &list); err != nil {
			t.Fatal(err)
		}
		var page struct {
			Version                            []version
			IsTruncated                        bool
			NextKeyMarker, NextVersionIdMarker string
		}
		if err := xml.Unmarshal(list.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Version {
			all[v.Key] = append(all[v.Key], v)
		}
		if !page.IsTruncated {
			break
		}
		next = "key-marker=" + url.QueryEscape(page.NextKeyMarker) + "&" // in order of name, as a signature wants it
		if page.NextVersionIdMarker != "" {
			t.Fatal("one object has more versions than a page")
		}
	}
	for name, vs := range all {
		if i := slices.IndexFunc(vs, func(v version) bool { return v.IsLatest }); i > 0 {
			t.Fatalf("%s: the newest version is not the first", name)
		}
	}
	return all
}

// putBack makes the bucket what it was, with the storage's own key: what was written over gets its old version, what came since
// goes. It goes by the versions' names, since versitygw dates an old version by the day on which it became one; on Amazon's S3 the
// time of the attack tells them apart.
func putBack(t *testing.T, store *lab.Store, before map[string][]version) {
	t.Helper()
	for name, now := range versionsOf(t, store) {
		var err error
		if was := before[name]; len(was) == 0 || strings.HasPrefix(name, "restic/locks/") { // nobody is at work there any more
			err = store.Do(t.Context(), store.Unlimited, http.MethodDelete, "/fast/"+name, nil, nil)
		} else if was[0].VersionId != now[0].VersionId {
			var text bytes.Buffer
			if err = store.Do(t.Context(), store.Unlimited, http.MethodGet, "/fast/"+name+"?versionId="+was[0].VersionId, nil, &text); err == nil {
				err = store.Do(t.Context(), store.Unlimited, http.MethodPut, "/fast/"+name, text.Bytes(), nil)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnIntruderInTheLabLosesUsNothing gives an intruder the backup key and the repository's password, so that he can do all that a
// machine that was broken into can: delete, forge, write over.
func TestAnIntruderInTheLabLosesUsNothing(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Storage: true})
	store := l.Store()
	s := newScene(t, &shared{}, play{on: inLab(l, "fast")})
	was := map[string][]tree.Entry{}
	for n := range 3 {
		restictest.Write(t, s.source, map[string]string{"a.md": fmt.Sprint("day ", n)})
		s.does(0, "1 of 1 services safe", "backup", "run", "fast")
		was[s.newest().ID] = measure(t, s.source)
	}
	s.does(0, "is whole", "backup", "check", "fast", "--all")
	s.does(0, "files", "watch")
	s.heard()
	real, err := s.repo.Snapshots(t.Context())
	if err != nil || len(real) != 3 {
		t.Fatal(len(real), err)
	}
	allBack := func(when string) {
		t.Helper()
		for id, entries := range was {
			s.comesBack(when+", a snapshot from before", id, entries)
		}
	}
	// He deletes: nothing goes, neither objects nor versions, and the bucket's settings stay.
	before := versionsOf(t, store)
	for name, vs := range before {
		for what, err := range map[string]error{
			"delete " + name:                store.Do(t.Context(), store.Backup, http.MethodDelete, "/fast/"+name, nil, nil),
			"delete a version of " + name:   store.Do(t.Context(), store.Backup, http.MethodDelete, "/fast/"+name+"?versionId="+vs[0].VersionId, nil, nil),
			"delete many, " + name + " too": store.Do(t.Context(), store.Backup, http.MethodPost, "/fast?delete=", []byte("<Delete><Object><Key>"+name+"</Key></Object></Delete>"), nil),
		} {
			lock := strings.HasPrefix(name, "restic/locks/")
			if refused := err != nil && strings.Contains(err.Error(), "AccessDenied"); !refused && !(lock && !strings.Contains(what, "version")) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for _, setting := range []string{"versioning", "policy", "lifecycle", "object-lock"} {
		if err := store.Do(t.Context(), store.Backup, http.MethodPut, "/fast?"+setting+"=", []byte("<x/>"), nil); err == nil {
			t.Errorf("he may change the bucket's %s", setting)
		}
	}
	allBack("after he deleted")

	// He forges a hundred snapshots of nothing, over days, so that forget would let the real ones go.
	for n := range 100 {
		forged := restictest.Snapshot{Time: time.Now().AddDate(0, 0, n-50), Tree: real[0].Tree, Hostname: "here", Username: "root", Paths: real[0].Paths, Tags: real[0].Tags}
		text, err := json.Marshal(forged)
		if err != nil {
			t.Fatal(err)
		}
		name, file := restictest.Seal(text)
		if err := store.Do(t.Context(), store.Backup, http.MethodPut, "/fast/restic/snapshots/"+name, file, nil); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.repo.Snapshots(t.Context()); err != nil || len(list) != 103 {
		t.Fatalf("%d snapshots are listed: %v", len(list), err)
	}
	asked := len(store.Proxy.Requests())
	s.does(exitRefused, "somebody else adds some", "backup", "maintenance", "fast", "--prune")
	s.does(1, "refuse maintenance", "watch") // and it stays a trouble
	for _, q := range store.Proxy.Requests()[asked:] {
		if q.Role == "maintenance" && (q.Action == s3proxy.Delete || q.Action == s3proxy.DeleteMany) && !strings.HasPrefix(q.Object, "restic/locks/") {
			t.Errorf("maintenance removed %s", q.Object)
		}
	}
	pushes, posts := s.heard()
	if strings.Count(posts, "🔴") != 1 || !strings.Contains(posts, "somebody else adds some") && !strings.Contains(posts, "which is to come") || !strings.Contains(pushes, "down refuse") {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
	allBack("after he forged")

	// He writes over every object.
	for name := range versionsOf(t, store) {
		if err := store.Do(t.Context(), store.Backup, http.MethodPut, "/fast/"+name, []byte("all your notes are belong to us"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.repo.Snapshots(t.Context()); err == nil {
		t.Error("the repository can be read")
	}
	s.does(1, "cannot be read", "watch")
	s.does(exitFailed, "", "backup", "maintenance", "fast", "--prune", "--accept") // not even by mistake
	s.does(exitFailed, "", "backup", "run", "fast")
	if pushes, posts := s.heard(); !strings.Contains(posts, "🔴 the fast repository, read from here") || !strings.Contains(pushes, "down") {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}

	// The bucket has the versions from before, which none of the machine's keys can touch.
	kept := versionsOf(t, store)
	for name, vs := range before {
		if !strings.HasPrefix(name, "restic/locks/") && len(kept[name]) <= len(vs) {
			t.Errorf("%s has %d versions, and had %d", name, len(kept[name]), len(vs))
		}
	}
	putBack(t, store, before)
	if list, err := s.repo.Snapshots(t.Context()); err != nil || !slices.EqualFunc(list, real, func(a, b restic.Snapshot) bool { return a.ID == b.ID }) {
		t.Fatalf("after old versions were put back: %d snapshots, %v", len(list), err)
	}
	s.remove("cache")
	allBack("after old versions were put back")
	s.does(0, "snapshots kept", "backup", "maintenance", "fast", "--prune")
	s.does(0, "is whole", "backup", "check", "fast", "--all")
	s.does(0, "1 of 1 services safe", "backup", "run", "fast")
	s.does(0, "files", "watch")
	if _, posts := s.heard(); strings.Count(posts, "🟢") < 2 || strings.Contains(posts, "🔴") {
		t.Errorf("when it was over, posted %q", posts)
	}
	for _, id := range slices.Sorted(maps.Keys(was)) {
		s.comesBack("in the end, a snapshot from before", id, was[id])
	}
}

// TestTheSlowTierIsColdByTheBucketsRule has the program write to the slow bucket: no request asks for a storage class, and what lies in
// the cold one afterwards is there by the rule.
func TestTheSlowTierIsColdByTheBucketsRule(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Storage: true})
	s := newScene(t, &shared{}, play{on: inLab(l, "slow")})
	s.edit("homelab.yaml", "  fast:", "  slow:")
	s.edit("services/notes/service.yaml", "rpo: {fast: 26h}", "rpo: {slow: 192h}")
	noise("/notes/photo.jpg")(s)
	for range 2 { // the second writes next to nothing
		s.does(0, "1 of 1 services safe", "backup", "run", "slow")
	}
	s.does(0, "is whole", "backup", "check", "slow", "--all")
	s.does(0, "snapshots kept", "backup", "maintenance", "slow", "--prune")
	s.does(0, "2 snapshots", "watch")
	cold, warm := 0, map[string]bool{}
	for _, o := range l.Store().Proxy.Objects() {
		large := strings.HasPrefix(o.Name, "restic/data/") && o.Bytes > 128<<10
		if o.Asked != s3proxy.Standard || (o.Class == "GLACIER_IR") != large {
			t.Errorf("%s of %d bytes was written as %s and lies in %s", o.Name, o.Bytes, o.Asked, o.Class)
		}
		if large {
			cold++
		} else {
			warm[strings.Split(o.Name, "/")[1]] = true
		}
	}
	if cold != 1 || !warm["snapshots"] || !warm["index"] || !warm["keys"] || !warm["config"] { // 2 MB are one pack of 64 MiB
		t.Errorf("%d packs are cold; warm are %v", cold, warm)
	}
	for _, q := range l.Store().Proxy.Requests() {
		if q.Class != "" || q.Role == "unlimited" && q.Object != "" {
			t.Errorf("%s %s asked for class %q with the key of %s", q.Action, q.Object, q.Class, q.Role)
		}
	}
}
