package library

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library/documents"
	"home.arpa/lab/llm-runner/internal/llm"
)

// stamp makes sure that the index is of source: another tree's index is emptied.
func stamp(ctx context.Context, d *db.DB, source string) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		var have string
		err := tx.QueryRowContext(ctx, `SELECT source FROM library_stamp`).Scan(&have)
		if err == nil && have == source {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		for _, q := range []string{
			`DELETE FROM library_segments`, `DELETE FROM library_passages`, `DELETE FROM library_names`, `DELETE FROM library_notes`, // documents stay: nobody could make them again
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO library_stamp (id, source, renewed) VALUES (1, ?, ?)
			ON CONFLICT (id) DO UPDATE SET source = excluded.source, renewed = excluded.renewed`, source, time.Now().Unix())
		return err
	})
	if err != nil {
		return fmt.Errorf("open library: %w", err)
	}
	return nil
}

// readRenewed returns when everything was read again last.
func readRenewed(ctx context.Context, d *db.DB) (time.Time, error) {
	var at int64
	if err := d.Read().QueryRowContext(ctx, `SELECT renewed FROM library_stamp`).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read library: %w", err)
	}
	return time.Unix(at, 0), nil
}

func writeRenewed(ctx context.Context, d *db.DB, at time.Time) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE library_stamp SET renewed = ?`, at.Unix())
		return err
	})
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return nil
}

// A known note is what the index holds of a file.
type known struct {
	id       int64
	size     int64
	mtime    int64
	hash     string
	skipped  string
	remarks  string
	passages int
}

// loadKnown returns what the index holds of the files of a collection, by path.
func loadKnown(ctx context.Context, d *db.DB, collection string) (map[string]known, error) {
	return db.Map(ctx, d.Read(), "read library", func(row *sql.Rows) (path string, k known, err error) {
		err = row.Scan(&path, &k.id, &k.size, &k.mtime, &k.hash, &k.skipped, &k.remarks, &k.passages)
		return path, k, err
	}, `SELECT n.path, n.id, n.size, n.mtime, n.hash, n.skipped, n.remarks,
		(SELECT count(*) FROM library_passages p WHERE p.note_id = n.id) FROM library_notes n WHERE n.collection = ?`, collection)
}

// loadIndex returns the index of words, or errSegment where it is damaged or does not hold all passages.
func loadIndex(ctx context.Context, d *db.DB) (*index, error) {
	alive, err := kept(ctx, d, Filter{})
	if err != nil {
		return nil, err
	}
	all, err := db.All(ctx, d.Read(), "read library", func(row *sql.Rows) (*segment, error) {
		var id int64
		var bytes sql.RawBytes
		if err := row.Scan(&id, &bytes); err != nil {
			return nil, err
		}
		s, err := decode(bytes)
		if err != nil {
			return nil, err
		}
		s.row = id
		return s.without(func(note uint32) bool { return !alive.notes[note] }), nil
	}, `SELECT id, postings FROM library_segments ORDER BY id`)
	if err != nil {
		return nil, err
	}
	// The passages of one segment lie between those of others, however often it was written anew: noteOf and later merges go by that.
	slices.SortStableFunc(all, func(a, b *segment) int { return cmp.Compare(a.first(), b.first()) })
	x, n := newIndex(all), 0
	if err := d.Read().QueryRowContext(ctx, `SELECT count(*) FROM library_passages`).Scan(&n); err != nil {
		return nil, fmt.Errorf("read library: %w", err)
	}
	if n != x.passages {
		return nil, errSegment
	}
	return x, nil
}

// replace writes one segment in the place of others.
func replace(ctx context.Context, d *db.DB, old []*segment, by *segment) error {
	err := d.Tx(ctx, func(tx *sql.Tx) (err error) {
		for _, s := range old {
			if _, err := tx.ExecContext(ctx, `DELETE FROM library_segments WHERE id = ?`, s.row); err != nil {
				return err
			}
		}
		return insert(ctx, tx, by)
	})
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return nil
}

// insert writes a segment, if it holds anything, and sets its row and size.
func insert(ctx context.Context, tx *sql.Tx, s *segment) error {
	if len(s.passages) == 0 {
		return nil
	}
	bytes := s.encode()
	r, err := tx.ExecContext(ctx, `INSERT INTO library_segments (postings) VALUES (?)`, bytes)
	if err != nil {
		return err
	}
	s.size = len(bytes)
	s.row, err = r.LastInsertId()
	return err
}

// A change is what one note becomes.
type change struct {
	collection string
	entry
	old  int64 // the row that it replaces; 0 none
	gone bool  // the file is no more
	same bool  // only the time stamp is new
	hash []byte
	text []byte
	doc  Doc
	id   int64 // set by apply

	pages   []int    // bytes of text at which pages begin
	remarks []string // what could not be read
}

// apply puts changes into the index, each note wholly or not at all, and returns the segment with their words.
func apply(ctx context.Context, d *db.DB, changes []*change) (s *segment, err error) {
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		w, err := prepare(ctx, tx)
		if err != nil {
			return err
		}
		defer w.close()
		for _, c := range changes {
			if err := w.apply(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.path, err)
			}
		}
		s = w.words.finish()
		return insert(ctx, tx, s)
	})
	if err != nil {
		return nil, fmt.Errorf("write library: %w", err)
	}
	return s, nil
}

// A writer holds the statements of one transaction.
type writer struct {
	touch, remove, note, name, passage *sql.Stmt

	words *builder
}

func prepare(ctx context.Context, tx *sql.Tx) (*writer, error) {
	w := &writer{words: newBuilder()}
	for _, p := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&w.touch, `UPDATE library_notes SET mtime = ? WHERE id = ?`},
		{&w.remove, `DELETE FROM library_notes WHERE id = ?`},
		{&w.note, `INSERT INTO library_notes (collection, path, size, mtime, hash, title, tags, type, day, language, skipped, pages, remarks)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`},
		{&w.name, `INSERT INTO library_names (name, note_id) VALUES (?,?) ON CONFLICT DO NOTHING`},
		{&w.passage, `INSERT INTO library_passages (note_id, heading, front, start_byte, end_byte, start_line, end_line, body)
			VALUES (?,?,?,?,?,?,?,?)`},
	} {
		stmt, err := tx.PrepareContext(ctx, p.sql) //nolint:sqlclosecheck // close does
		if err != nil {
			w.close()
			return nil, err
		}
		*p.stmt = stmt
	}
	return w, nil
}

func (w *writer) close() {
	for _, s := range []*sql.Stmt{w.touch, w.remove, w.note, w.name, w.passage} {
		if s != nil {
			s.Close()
		}
	}
}

func (w *writer) apply(ctx context.Context, c *change) error {
	if c.same {
		c.id = c.old
		_, err := w.touch.ExecContext(ctx, c.mtime, c.old)
		return err
	}
	if c.old != 0 {
		if _, err := w.remove.ExecContext(ctx, c.old); err != nil { // its names and passages go with it
			return err
		}
	}
	if c.gone {
		return nil
	}
	if c.hash == nil {
		c.hash = []byte{}
	}
	r, err := w.note.ExecContext(ctx, c.collection, c.path, c.size, c.mtime, c.hash, c.doc.Title, foldTags(c.doc.Tags), c.doc.Type, c.day(),
		c.doc.language, c.reason, documents.JoinPages(c.pages), strings.Join(c.remarks, "\n"))
	if err != nil {
		return err
	}
	if c.id, err = r.LastInsertId(); err != nil || c.reason != "" {
		return err
	}
	for _, name := range names(c.path, c.doc) {
		if _, err := w.name.ExecContext(ctx, name, c.id); err != nil {
			return err
		}
	}
	f := c.doc.fields(c.path)
	for _, p := range c.doc.Passages {
		body := string(c.text[p.Start:p.End])
		r, err := w.passage.ExecContext(ctx, c.id, strings.Join(p.Heading, "\n"), p.Front, p.Start, p.End, p.Line, p.EndLine, body)
		if err != nil {
			return err
		}
		id, err := r.LastInsertId()
		if err != nil {
			return err
		}
		f[inHeading] = stems(strings.Join(p.Heading, "\n"), c.doc.language)
		w.words.add(uint32(id), uint32(c.id), stems(body, c.doc.language), f)
	}
	return nil
}

// named returns the passages of the notes that are called by one of names, in order, at most n.
func named(ctx context.Context, d *db.DB, names []string, n int) ([]scored, error) {
	marks, args := db.In(names)
	return db.All(ctx, d.Read(), "search library", func(row *sql.Rows) (s scored, err error) {
		err = row.Scan(&s.id, &s.note)
		return s, err
	}, `SELECT DISTINCT p.id, p.note_id FROM library_names x JOIN library_passages p ON p.note_id = x.note_id
		WHERE x.name IN (`+marks+`) ORDER BY p.note_id, p.front, p.start_byte LIMIT ?`, append(args, n)...)
}

// A found passage is a row of the index.
type found struct {
	llm.Citation
	note       int64
	collection string
	title      string
	names      string // what the note is called, folded
	language   language
	front      bool
	pages      []int
}

// passages returns the passages with these ids; those that have been removed meanwhile are left out.
func passages(ctx context.Context, d *db.DB, ids []int64) (map[int64]found, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	marks, args := db.In(ids)
	return db.Map(ctx, d.Read(), "search library", func(row *sql.Rows) (id int64, f found, err error) {
		var trail, pages string
		err = row.Scan(&id, &f.note, &f.collection, &f.Path, &f.title, &f.language, &trail, &f.front, &f.Start, &f.End, &f.Line, &f.EndLine, &f.Quote, &pages, &f.names)
		if trail != "" {
			f.Heading = strings.Split(trail, "\n")
		}
		f.pages = documents.SplitPages(pages)
		return id, f, err
	}, `SELECT p.id, n.id, n.collection, n.path, n.title, n.language, p.heading, p.front, p.start_byte, p.end_byte, p.start_line,
		p.end_line, p.body, n.pages, (SELECT coalesce(group_concat(name, ' '), '') FROM library_names x WHERE x.note_id = n.id)
		FROM library_passages p JOIN library_notes n ON n.id = p.note_id WHERE p.id IN (`+marks+`)`, args...)
}

// OfType returns the paths of the notes of a type (of their frontmatter, lower case), in order.
func (l *Library) OfType(ctx context.Context, kind string) ([]string, error) {
	return db.All(ctx, l.db.Read(), "list notes of type "+kind, db.Column[string],
		`SELECT path FROM library_notes WHERE type = ? AND collection = ? ORDER BY path`, kind, Notes)
}

// A Touched note is one that was changed at a time.
type Touched struct {
	Path, Title string
	At          time.Time
}

// Touched returns the notes whose files changed since a time, newest first, at most n. Those that programs wrote are left out. At is zero where a
// file changed just now.
func (l *Library) Touched(ctx context.Context, since time.Time, n int) ([]Touched, error) {
	return db.All(ctx, l.db.Read(), "list changed notes", func(row *sql.Rows) (t Touched, err error) {
		var at int64
		err = row.Scan(&t.Path, &t.Title, &at)
		if at != 0 {
			t.At = time.Unix(0, at)
		}
		return t, err
	}, `SELECT path, title, mtime FROM library_notes WHERE collection = ? AND skipped = '' AND (mtime > ? OR mtime = 0) ORDER BY mtime = 0 DESC, mtime DESC LIMIT ?`, Notes, since.UnixNano(), n)
}

// Holding returns the passages of notes that hold a text as it is written, in the order of their places, at most n.
func (l *Library) Holding(ctx context.Context, text string, n int) ([]llm.Citation, error) {
	return db.All(ctx, l.db.Read(), "list passages", func(row *sql.Rows) (c llm.Citation, err error) {
		err = row.Scan(&c.Path, &c.Line, &c.Quote)
		return c, err
	}, `SELECT n.path, p.start_line, p.body FROM library_passages p JOIN library_notes n ON n.id = p.note_id
		WHERE n.collection = ? AND instr(p.body, ?) > 0 ORDER BY n.path, p.start_byte LIMIT ?`, Notes, text, n)
}

// kept returns the notes that f keeps.
func kept(ctx context.Context, d *db.DB, f Filter) (*keeping, error) {
	where, values := []string{`skipped = ''`}, []any{}
	add := func(condition string, value ...any) {
		where, values = append(where, condition), append(values, value...)
	}
	for _, tag := range f.Tags {
		add(`(instr(tags, ?) > 0 OR instr(tags, ?) > 0)`, "\n"+tag+"\n", "\n"+tag+"/")
	}
	if f.Type != "" {
		add(`type = ?`, f.Type)
	}
	if f.Collection != "" {
		add(`collection = ?`, f.Collection)
	}
	if f.After != "" {
		add(`day >= ?`, f.After)
	}
	if f.Before != "" {
		add(`day <> '' AND day < ?`, f.Before)
	}
	k := newKeeping(f)
	err := db.Each(ctx, d.Read(), "search library", func(row *sql.Rows) error {
		var note uint32
		var path, tags string
		err := row.Scan(&note, &path, &tags)
		if err == nil {
			k.add(note, path, tags)
		}
		return err
	}, `SELECT id, path, tags FROM library_notes WHERE `+strings.Join(where, " AND "), values...)
	return k, err
}

// called are the notes and documents whose title or path has all words, the youngest first.
func called(ctx context.Context, d *db.DB, words []string) (all []Name, err error) {
	err = db.Each(ctx, d.Read(), "search library", func(row *sql.Rows) error {
		var n Name
		if err := row.Scan(&n.Collection, &n.Path, &n.Title); err != nil {
			return err
		}
		name := folded(n.Title + "\n" + n.Path)
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(name, word) }) {
			all = append(all, n)
		}
		return nil
	}, `SELECT collection, path, title FROM library_notes WHERE skipped = '' AND collection <> ? ORDER BY mtime DESC, id DESC`, Memory)
	return all, err
}

func writeExcluded(ctx context.Context, d *db.DB, patterns []string) error {
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM library_excluded`); err != nil {
			return err
		}
		for _, p := range patterns {
			if _, err := tx.ExecContext(ctx, `INSERT INTO library_excluded (pattern) VALUES (?)`, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write library: %w", err)
	}
	return nil
}

func readExcluded(ctx context.Context, d *db.DB) ([]string, error) {
	return db.All(ctx, d.Read(), "read library", db.Column[string], `SELECT pattern FROM library_excluded ORDER BY pattern`)
}

// collections returns the collections that hold notes, and always that of the files.
func collections(ctx context.Context, d *db.DB) ([]string, error) {
	all, err := db.All(ctx, d.Read(), "read library", db.Column[string], `SELECT DISTINCT collection FROM library_notes WHERE collection <> ? ORDER BY collection`, Notes)
	return append([]string{Notes}, all...), err
}

// knownDocuments returns what the index holds of documents, by collection and path.
func knownDocuments(ctx context.Context, d *db.DB) (map[string]map[string]known, error) {
	all := map[string]map[string]known{}
	err := db.Each(ctx, d.Read(), "read library", func(row *sql.Rows) error {
		var collection, path string
		var k known
		err := row.Scan(&collection, &path, &k.id, &k.mtime, &k.remarks)
		if all[collection] == nil {
			all[collection] = map[string]known{}
		}
		all[collection][path] = k
		return err
	}, `SELECT collection, path, id, mtime, remarks FROM library_notes WHERE collection <> ?`, Notes)
	return all, err
}

// readExtracted sets what was read out of a file: its passages put together. hash is of the file that it was read out of.
func readExtracted(ctx context.Context, d *db.DB, n *Note) (hash []byte, err error) {
	var id int64
	var pages, remarks string
	err = d.Read().QueryRowContext(ctx, `SELECT id, title, hash, pages, remarks FROM library_notes WHERE collection = ? AND path = ? AND skipped = ''`,
		n.Collection, n.Path).Scan(&id, &n.Title, &hash, &pages, &remarks)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s: %w", n.Path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read library: %w", err)
	}
	n.Text = []byte{}
	err = db.Each(ctx, d.Read(), "read library", func(row *sql.Rows) error {
		var body sql.RawBytes
		err := row.Scan(&body)
		n.Text = append(n.Text, body...)
		return err
	}, `SELECT body FROM library_passages WHERE note_id = ? ORDER BY start_byte`, id)
	n.Pages, n.Remarks = documents.SplitPages(pages), documents.Lines(remarks)
	return hash, err
}
