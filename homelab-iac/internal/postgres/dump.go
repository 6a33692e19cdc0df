package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Manifest says what a dump holds, measured in the same snapshot that was dumped.
type Manifest struct {
	Made      time.Time  `json:"made"`
	Server    string     `json:"server"` // "15.18"
	Globals   File       `json:"globals"`
	Databases []Database `json:"databases"`
}

// A File of the dump.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// A Database as it was.
type Database struct {
	Name         string     `json:"name"`
	Owner        string     `json:"owner"`
	Encoding     string     `json:"encoding"`
	Collate      string     `json:"collate"`
	CType        string     `json:"ctype"`
	File         File       `json:"file"`
	Extensions   []string   `json:"extensions"`
	Tables       []Table    `json:"tables"`
	Sequences    []Sequence `json:"sequences"`
	LargeObjects string     `json:"large_objects"`
}

// A Table with its number of rows and the hash of all of them in order.
type Table struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// A Sequence and a value that it had reached before the dump began. Sequences stand outside transactions.
type Sequence struct {
	Name string `json:"name"`
	Last int64  `json:"last"`
}

// ManifestName is the manifest's file in a dump's folder.
const ManifestName = "manifest.json"

const globalsName = "globals.sql"

// Dump writes globals, databases (all where none are named) and the manifest into dir, which appears only when it is whole.
// What an earlier, killed run left of it is removed.
func (s Server) Dump(ctx context.Context, dir string, databases []string) (Manifest, error) {
	m := Manifest{Made: time.Now().UTC().Truncate(time.Second)}
	var err error
	if m.Server, err = s.Check(ctx); err != nil {
		return m, err
	}
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(dir)); err != nil {
		return m, fmt.Errorf("clear the dump's place: %w", err)
	}
	if err := os.MkdirAll(part, 0o700); err != nil {
		return m, fmt.Errorf("make the dump's place: %w", err)
	}
	if err := s.dumpInto(ctx, part, databases, &m); err != nil {
		os.RemoveAll(part)
		return m, err
	}
	if err := os.Rename(part, dir); err != nil {
		return m, fmt.Errorf("name the dump: %w", err)
	}
	return m, nil
}

func (s Server) dumpInto(ctx context.Context, dir string, databases []string, m *Manifest) error {
	if len(databases) == 0 {
		var err error
		if databases, err = s.query(ctx, "postgres", listDatabases); err != nil {
			return err
		}
	}
	var globals bytes.Buffer
	if err := s.run(ctx, nil, &globals, "pg_dumpall", "--globals-only"); err != nil {
		return err
	}
	var err error
	if m.Globals, err = save(filepath.Join(dir, globalsName), func(w io.Writer) error { _, err := w.Write(repeatable(globals.Bytes())); return err }); err != nil {
		return err
	}
	for _, name := range databases {
		db, err := s.dumpDatabase(ctx, dir, name)
		if err != nil {
			return fmt.Errorf("dump database %s: %w", name, err)
		}
		m.Databases = append(m.Databases, db)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	_, err = save(filepath.Join(dir, ManifestName), func(w io.Writer) error { _, err := w.Write(text); return err })
	return err
}

// dumpDatabase measures a database in one exported snapshot and dumps it in the same, at the same time.
func (s Server) dumpDatabase(ctx context.Context, dir, name string) (Database, error) {
	p, err := s.open(ctx, name)
	if err != nil {
		return Database{}, err
	}
	defer p.close()
	if _, err := p.ask(begin); err != nil {
		return Database{}, err
	}
	snapshot, err := p.ask(exportSnapshot)
	if err != nil || len(snapshot) != 1 {
		return Database{}, fmt.Errorf("export snapshot %q: %w", snapshot, err)
	}
	db := Database{Name: name}
	if err := p.describe(&db); err != nil { // sequences first: the dump's are at least these
		return db, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type dumped struct {
		file File
		err  error
	}
	done := make(chan dumped, 1)
	go func() {
		// Uncompressed: restic compresses, and finds what did not change.
		f, err := save(filepath.Join(dir, name+".dump"), func(w io.Writer) error {
			return s.run(ctx, nil, w, "pg_dump", "--format=custom", "--compress=0", "--no-password", "--snapshot="+snapshot[0], "--dbname="+name)
		})
		done <- dumped{f, err}
	}()
	err = p.hashTables(&db)
	if err != nil {
		cancel()
	}
	d := <-done
	if err == nil {
		err = d.err
	}
	db.File = d.file
	return db, err
}

func (p *session) describe(db *Database) error {
	about, err := p.ask(describeDatabase)
	if err != nil {
		return err
	}
	words := strings.Split(strings.Join(about, ""), "\t")
	if len(words) != 4 {
		return fmt.Errorf("describe database %s: %q", db.Name, about)
	}
	db.Encoding, db.Collate, db.CType, db.Owner = words[0], words[1], words[2], words[3]
	if db.Extensions, err = p.ask(listExtensions); err != nil {
		return err
	}
	objects, err := p.ask(countLargeObjects)
	if err != nil {
		return err
	}
	db.LargeObjects = strings.Join(objects, "")
	sequences, err := p.ask(listSequences)
	for _, line := range sequences {
		name, value, _ := strings.Cut(line, "\t")
		last, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("read sequence %s: %w", name, err)
		}
		db.Sequences = append(db.Sequences, Sequence{name, last})
	}
	return err
}

func (p *session) hashTables(db *Database) error {
	names, err := p.ask(listTables)
	if err != nil {
		return err
	}
	for _, name := range names {
		t, err := p.hash(name)
		if err != nil {
			return err
		}
		db.Tables = append(db.Tables, t)
	}
	return nil
}

// Measure looks at a database as Dump does, without dumping it.
func (s Server) Measure(ctx context.Context, name string) (Database, error) {
	db := Database{Name: name}
	p, err := s.open(ctx, name)
	if err != nil {
		return db, err
	}
	defer p.close()
	if _, err := p.ask(begin); err != nil {
		return db, err
	}
	if err := p.describe(&db); err != nil {
		return db, err
	}
	return db, p.hashTables(&db)
}

// Diff says in what a restored database differs from the one that was dumped; nothing means that it is the same. Names and
// files are not compared, and a sequence may have gone on.
func Diff(was, is Database) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, c := range []struct{ what, was, is string }{
		{"owner", was.Owner, is.Owner}, {"encoding", was.Encoding, is.Encoding}, {"collation", was.Collate, is.Collate},
		{"character type", was.CType, is.CType}, {"extensions", strings.Join(was.Extensions, ", "), strings.Join(is.Extensions, ", ")},
		{"number of large objects", was.LargeObjects, is.LargeObjects},
	} {
		if c.was != c.is {
			say("%s: was %q, is %q", c.what, c.was, c.is)
		}
	}
	there := map[string]Table{}
	for _, t := range is.Tables {
		there[t.Name] = t
	}
	for _, t := range was.Tables {
		got, ok := there[t.Name]
		delete(there, t.Name)
		switch {
		case !ok:
			say("table %s: is missing, had %d rows", t.Name, t.Rows)
		case got.Rows != t.Rows:
			say("table %s: had %d rows, has %d", t.Name, t.Rows, got.Rows)
		case got.SHA256 != t.SHA256:
			say("table %s: its %d rows are others", t.Name, t.Rows)
		}
	}
	for name := range there {
		say("table %s: was not there", name)
	}
	last := map[string]int64{}
	for _, q := range is.Sequences {
		last[q.Name] = q.Last
	}
	for _, q := range was.Sequences {
		if got, ok := last[q.Name]; !ok || got < q.Last {
			say("sequence %s: had reached %d, is at %d", q.Name, q.Last, got)
		}
	}
	return out
}

// Verify reads a dump's folder again: every file that the manifest names is there, as long and with the same hash.
func Verify(dir string) (Manifest, error) {
	var m Manifest
	text, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return m, fmt.Errorf("read the dump's manifest: %w: the dump is not whole; take another snapshot", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read the dump's manifest: %w: the dump is not whole; take another snapshot", err)
	}
	if len(m.Databases) == 0 {
		return m, errors.New("verify dump: it holds no database; take another snapshot")
	}
	files := []File{m.Globals}
	for _, db := range m.Databases {
		files = append(files, db.File)
	}
	for _, f := range files {
		if filepath.Base(f.Name) != f.Name {
			return m, fmt.Errorf("verify dump: %q is not a file name", f.Name)
		}
		sum := sha256.New()
		n, err := copyFile(sum, filepath.Join(dir, f.Name))
		if err != nil {
			return m, fmt.Errorf("verify dump: %w; take another snapshot", err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); n != f.Bytes || got != f.SHA256 {
			return m, fmt.Errorf("verify dump: %s has %d bytes and hash %.12s, the manifest says %d and %.12s; take another snapshot", f.Name, n, got, f.Bytes, f.SHA256)
		}
	}
	return m, nil
}

func copyFile(w io.Writer, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(w, f)
}

// save writes a file, has it on disk, and says how long it is and what its hash is.
func save(path string, write func(io.Writer) error) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return File{}, fmt.Errorf("write dump: %w", err)
	}
	defer f.Close()
	w := &measured{to: f, sum: sha256.New()}
	if err := write(w); err != nil {
		return File{}, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return File{}, fmt.Errorf("write dump: %w", err)
	}
	if w.n == 0 {
		return File{}, fmt.Errorf("write dump: %s is empty", filepath.Base(path))
	}
	return File{filepath.Base(path), w.n, hex.EncodeToString(w.sum.Sum(nil))}, nil
}

type measured struct {
	to  io.Writer
	sum hash.Hash
	n   int64
}

func (m *measured) Write(p []byte) (int, error) {
	n, err := m.to.Write(p)
	m.sum.Write(p[:n])
	m.n += int64(n)
	return n, err
}
